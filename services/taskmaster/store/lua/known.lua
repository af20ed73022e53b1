--[[ known — which jobs there are still, themselves or as dead letters.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   ids (MessagePack list, at most 200), now ('' = server time)
OUT    1 or 0 an id
REPEAT reads only ]]
--- @include "lib/tag"

local out = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[1])) do out[i] = call('EXISTS', P .. 'j:' .. id, P .. 'd:' .. id) > 0 and 1 or 0 end
return out
