--[[ schedule_fires — what became of the last instants of a schedule, newest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, most rows, now ('' = server time)
OUT    1 when there is such a schedule, then two values each: a JSON row (at, fired, lag, job, outcome, by, why; missed ones together: count, at the first,
       last), and the state of its job, '' when there is none or it was pruned
REPEAT reads only ]]
--- @include "lib/tag"

local id, most = ARGV[1], tonumber(ARGV[2])
local out = { call('EXISTS', P .. 'sc:' .. id) }
for _, row in ipairs(call('LRANGE', P .. 'scfire:' .. id, 0, most - 1)) do
  local job = cjson.decode(row).job
  out[#out + 1] = row
  out[#out + 1] = job ~= '' and call('HGET', P .. 'j:' .. job, 'st') or ''
end
return out
