--[[ webhooks — the endpoints that are told of ends, or one of them. Their secrets are among the fields.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id ('' = all), now ('' = server time)
OUT    a row an endpoint: [id, field, value, ...]; of one that is asked for and is gone only its revision, of one that never was nothing
REPEAT reads only ]]
--- @include "lib/tag"

local only = ARGV[1]
local ENDPOINTS_MAX = 1000

local ids, out = only ~= '' and { only } or call('SMEMBERS', P .. 'whs'), {}
table.sort(ids)
for i = 1, math.min(#ids, ENDPOINTS_MAX) do
  local fields = call('HGETALL', P .. 'wh:' .. ids[i])
  if #fields > 0 then out[#out + 1] = { ids[i], unpack(fields) } end
end
return out
