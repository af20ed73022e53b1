--[[ lineage — the jobs that came of one another by replays.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id of a job of the lineage, at most, now ('' = server time)
OUT    [] when nothing is known of it, else root id, 1 if there are more than were looked at, then a row each: [id, 1 if it has a dead-letter record, field, value, ...];
       no fields: retention has taken the job, its record is left
REPEAT reads only ]]
--- @include "lib/tag"

local id, most = ARGV[1], tonumber(ARGV[2])
local root = call('HGET', P .. 'j:' .. id, 'rt') or call('HGET', P .. 'd:' .. id, 'rt') or id
local out, seen, n = { root, 0 }, {}, 0

local function tell_of(member)
  if seen[member] then return end
  seen[member] = true
  local row, is_dead = call('HGETALL', P .. 'j:' .. member), call('EXISTS', P .. 'd:' .. member)
  if #row == 0 and is_dead == 0 then return end
  table.insert(row, 1, is_dead)
  table.insert(row, 1, member)
  out[#out + 1] = row
end

tell_of(id)
tell_of(root)
local cursor = '0'
repeat -- a set of thousands must not be answered at once
  local page = call('SSCAN', P .. 'line:' .. root, cursor, 'COUNT', 500)
  cursor = page[1]
  for _, member in ipairs(page[2]) do
    n = n + 1
    if string.sub(member, 1, 2) ~= 'e/' and #out < most + 2 then tell_of(string.match(member, '^d/(.*)$') or member) end
  end
until cursor == '0' or n >= 2 * most or #out >= most + 2
if cursor ~= '0' or #out >= most + 2 then out[2] = 1 end
if #out == 2 then return {} end
return out
