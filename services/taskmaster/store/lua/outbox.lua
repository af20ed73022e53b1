--[[ outbox — ends of jobs that are to be told of and for which no delivery is known to be submitted, oldest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   most rows, now ('' = server time)
OUT    a row an end: [entry, field, value, ...]; fields: id of the job, st c | f | x, q queue, ty type, at attempts, rs reason or '', fa ended ms,
       url of its callback or ''
REPEAT reads only ]]
--- @include "lib/tag"

local most = tonumber(ARGV[1])
local out = {}
for i, entry in ipairs(call('XRANGE', P .. 'ob', '-', '+', 'COUNT', most)) do
  out[i] = { entry[1], unpack(entry[2]) }
end
return out
