--[[ limits — the limiters as they stand.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   name ('' = all), now ('' = server time)
OUT    a row a limiter: [name, fields (field, value, ...), in use (claims that count now; of one that is by key: instances that wait), units that wait,
       ms until there is room again by itself, 0 when there is room, -1 when somebody has to give back]; of a name that is asked for and has
       no rule (any more) only the revision, as a field
REPEAT reads only ]]
--- @include "lib/limits"

local only = ARGV[1]
local NAMES_MAX = 1000

local names, out = only ~= '' and { only } or call('SMEMBERS', P .. 'ls'), {}
table.sort(names)
for i = 1, math.min(#names, NAMES_MAX) do
  local name = names[i]
  local fields, l = call('HGETALL', P .. 'L:' .. name), limiter(name, '-')
  if l then
    local in_use = l.is_by_key and call('ZCARD', P .. 'L:' .. name .. ':i') or l.max and l.room ~= math.huge and l.max - l.room or 0
    local waits = l.is_by_key and 0 or call('ZCARD', l.key .. ':w')
    local room = (l.is_by_key or l.room > 0) and 0 or room_from(l) and math.max(1, room_from(l) - now) or -1
    out[#out + 1] = { name, fields, in_use, waits, room }
  elseif only ~= '' then
    out[1] = { name, fields, 0, 0, 0 }
  end
end
return out
