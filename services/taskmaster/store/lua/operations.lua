--[[ operations — a page of operations, newest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   which (ops: those to be looked after | oplog: all | else the id of one), score of the row before the page, its id (both '' = from the beginning),
       rows at most, now ('' = server time)
OUT    1 when there are more, then a row each: [id, ms when made, jobs that are not known to have ended, field, value, ...]
REPEAT reads only ]]
--- @include "lib/walk"

local which, c_score, c_member, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local function row_of(id, score)
  local row = { id, score, call('ZCARD', P .. 'opj:' .. id) }
  local fields = call('HGETALL', P .. 'op:' .. id)
  for i = 1, #fields do row[i + 3] = fields[i] end
  return row
end

if which ~= 'ops' and which ~= 'oplog' then
  local made = call('HGET', P .. 'op:' .. which, 'cm')
  return made and { 0, row_of(which, made) } or { 0 }
end
local next_one = walk(sources_of({ P .. which }, c_score, c_member, true), limit + 1, true)
local out = { 0 }
while #out <= limit do
  local score, id = next_one(true)
  if not score then return out end
  local row = row_of(id, score)
  if #row > 3 then out[#out + 1] = row end
end
if next_one() then out[1] = 1 end
return out
