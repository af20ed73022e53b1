--[[ workers — the consumers that are alive.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   at most, now ('' = server time)
OUT    a row each: [id, cap, who it is as JSON, registered ms, alive until ms]
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

local most = tonumber(ARGV[1])
local out = {}
local alive = call('ZREVRANGEBYSCORE', P .. 'ws', '+inf', '(' .. NOW, 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #alive, 2 do
  local f = call('HMGET', P .. 'w:' .. alive[i], 'cap', 'info', 'since')
  out[#out + 1] = { alive[i], f[1] or '', f[2] or '', f[3] or '0', alive[i + 1] }
end
return out
