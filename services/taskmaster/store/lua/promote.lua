--[[ promote — put due jobs into their lanes, without waiting for a consumer's round.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   now ('' = server time)
OUT    1 when more than 100 were due: call again
REPEAT finds nothing the second time ]]
--- @include "lib/promote"

local more = promote(100)
write_indexes()
open_bands()
announce()
write_rest()
return more
