--[[ effects — the effects of one lineage.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id of a job of the lineage, now ('' = server time)
OUT    root id, then an effect each: [effect, row as JSON, 1 if its attempt holds the job now, result]; [] when there is no such job
REPEAT reads only ]]
--- @include "lib/effects"

local id = ARGV[1]
local RESULTS_AT_MOST = 1048576

local root = call('HGET', P .. 'j:' .. id, 'rt') or call('HGET', P .. 'd:' .. id, 'rt') or id
if root == id and call('EXISTS', P .. 'j:' .. id, P .. 'd:' .. id, P .. 'e:' .. id) == 0 then return {} end
local out, room = { root }, RESULTS_AT_MOST
for _, field in ipairs(call('HKEYS', P .. 'e:' .. root)) do
  if field ~= '#' and string.sub(field, 1, 2) ~= 'r/' then
    local row = call('HGET', P .. 'e:' .. root, field)
    local result = room > 0 and call('HGET', P .. 'e:' .. root, 'r/' .. field) or ''
    room = room - #result
    out[#out + 1] = { field, row, is_owner_current(cjson.decode(row)) and 1 or 0, result }
  end
end
return out
