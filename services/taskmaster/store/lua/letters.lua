--[[ letters — how many dead letters are meant by a filter, oldest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   filter (JSON, lib/letters), failed at the latest ms, score of the one before, its member (both '' = from the beginning), now ('' = server time)
OUT    1 when there are more to look at, how many are meant, score and member of the last one looked at ('' when none was), ids of the first five
REPEAT reads only ]]
--- @include "lib/walk"
--- @include "lib/letters"

local filter, upto, c_score, c_member = letter_filter(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local SHOWN = 5
local most = (filter.text or filter.version) and 250 or 1000 -- rows that are looked at; fewer where whole errors are read

upto = latest_meant(filter, upto)
if c_score == '' then c_score = first_meant(filter) end
local keys, is_simple = letter_indexes(filter), is_index_enough(filter)
local next_one = walk(sources_of(keys, c_score, c_member, false), 50, false)
local out, looked = { 0, 0, '', '' }, 0
local score, member = next_one(true)
while score and tonumber(score) <= upto do
  if looked == most or (is_simple and looked == SHOWN) then
    out[1] = 1
    break
  end
  looked, out[3], out[4] = looked + 1, score, member
  if is_meant(member, filter) then
    out[2] = out[2] + 1
    if out[2] <= SHOWN then out[#out + 1] = member end
  end
  score, member = next_one(true)
end
if is_simple then
  out[1], out[2] = 0, 0
  for _, key in ipairs(keys) do out[2] = out[2] + call('ZCOUNT', key, c_score == '' and '-inf' or c_score, upto) end
end
return out
