--[[ unsettled — effects that are reserved, oldest first: under way, or unknown.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   behind ms, behind member ('' twice: from the beginning), how many at most (1 to 200), now ('' = server time)
OUT    an effect each: [root id, effect, ms when reserved, row as JSON, 1 if its attempt holds the job now]
REPEAT reads only ]]
--- @include "lib/effects"

local after_ms, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local EQUAL_AT_MOST = 1000 -- reserved in one millisecond

local members = call('ZRANGEBYSCORE', P .. 'eu', after_ms == '' and '-inf' or after_ms, '+inf', 'WITHSCORES', 'LIMIT', 0, limit + EQUAL_AT_MOST)
local out = {}
for i = 1, #members, 2 do
  local member, ms = members[i], members[i + 1]
  if #out == limit then break end
  if ms ~= after_ms or member > after then
    local root, effect = string.match(member, '^([^/]+)/(.+)$')
    local row = root and call('HGET', P .. 'e:' .. root, effect)
    if row then out[#out + 1] = { root, effect, ms, row, is_owner_current(cjson.decode(row)) and 1 or 0 } end
  end
end
return out
