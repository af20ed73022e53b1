-- What still holds the effects of a lineage: its jobs, dead-letter records that outlive them (`d/<id>`), effects that are not settled (`e/<effect>`).
--- @include "lib/tag"

local function hold_lineage(root, ...)
  call('SADD', P .. 'line:' .. root, ...)
end

-- The last one that lets go takes the effects along.
local function leave_lineage(root, what)
  local line = P .. 'line:' .. root
  if call('SREM', line, what) == 1 and call('EXISTS', line) == 0 then call('UNLINK', P .. 'e:' .. root) end
end

-- A job of a lineage is forgotten: its dead-letter record, if it left one, can still be replayed.
local function job_leaves_lineage(root, id)
  if call('EXISTS', P .. 'd:' .. id) == 1 then hold_lineage(root, 'd/' .. id) end
  leave_lineage(root, id)
end
