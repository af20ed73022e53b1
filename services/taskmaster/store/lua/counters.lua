--[[ counters — everything that is counted, and how many dead letters there are.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   now ('' = server time)
OUT    [field, value, ...] of `n`, and [queue, dead letters, ...] of all queues
REPEAT reads only ]]
--- @include "lib/tag"

local letters, n = {}, 0
for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
  letters[n + 1], letters[n + 2] = queue, call('ZCARD', P .. 'dlq:' .. queue)
  n = n + 2
end
return { call('HGETALL', P .. 'n'), letters }
