--[[ promote — what has fallen due without waiting for a consumer's round: jobs into their lanes, expired ones cancelled, limiters looked at.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   key window ms, now ('' = server time)
OUT    1 when more than 100 jobs were due: call again
REPEAT finds nothing the second time ]]
--- @include "lib/promote"
--- @include "lib/expire"
--- @include "lib/park"

local window = tonumber(ARGV[1])
local A_CALL = 100

local more = promote(A_CALL)
write_indexes()
if expire_due(A_CALL, window) == 1 then more = 1 end
write_indexes()
open_bands()
kick()
kick_again()
announce()
write_rest()
return more
