--[[ groups — fingerprints of dead letters, by their last failure, newest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   score of the row before the page, its fingerprint (both '' = from the beginning), rows at most, now ('' = server time)
OUT    1 when there are more, then a row each: [fingerprint, ms of its last failure]
REPEAT reads only ]]
--- @include "lib/walk"

local c_score, c_member, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])

local next_one = walk(sources_of({ P .. 'fps' }, c_score, c_member, true), limit + 1, true)
local out = { 0 }
while #out <= limit do
  local score, print = next_one(true)
  if not score then return out end
  out[#out + 1] = { print, score }
end
if next_one() then out[1] = 1 end
return out
