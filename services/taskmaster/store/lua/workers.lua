--[[ workers — the consumers that are alive.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   at most, now ('' = server time)
OUT    a row each: [id, cap, who it is as JSON, registered ms, alive until ms, its plugin set as JSON: told with the first of each cap, else '']
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

local most = tonumber(ARGV[1])
local out, told = {}, {}
local alive = call('ZREVRANGEBYSCORE', P .. 'ws', '+inf', '(' .. NOW, 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #alive, 2 do
  local f = call('HMGET', P .. 'w:' .. alive[i], 'cap', 'info', 'since')
  local cap = f[1] or ''
  local set = not told[cap] and call('GET', P .. 'set:' .. cap) or ''
  told[cap] = true
  out[#out + 1] = { alive[i], cap, f[2] or '', f[3] or '0', alive[i + 1], set }
end
return out
