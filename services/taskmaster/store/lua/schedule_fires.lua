--[[ schedule_fires — what became of the last instants of a schedule, newest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, most rows, now ('' = server time)
OUT    1 when there is such a schedule, then a JSON row each: at, fired, lag, job, outcome, by, why; missed ones together: count, at the first, last
REPEAT reads only ]]
--- @include "lib/tag"

local id, most = ARGV[1], tonumber(ARGV[2])
return { call('EXISTS', P .. 'sc:' .. id), unpack(call('LRANGE', P .. 'scfire:' .. id, 0, most - 1)) }
