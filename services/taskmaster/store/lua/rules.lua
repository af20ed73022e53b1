--[[ rules — what operators have ordered: settings of queues, pauses, limiters of job types; and which limiters there are.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   queues (MessagePack list; empty = all), now ('' = server time)
OUT    [[queue, field, value ...] for each with settings], pauses [scope, JSON ...], limiters of job types [type, names ...],
       orders [field, value ...], names of limiters
REPEAT reads only ]]
--- @include "lib/tag"

local wanted = cmsgpack.unpack(ARGV[1])

local queues = {}
for _, queue in ipairs(#wanted > 0 and wanted or call('SMEMBERS', P .. 'qs')) do
  local fields = call('HGETALL', P .. 'q:' .. queue)
  if #fields > 0 then
    table.insert(fields, 1, queue)
    queues[#queues + 1] = fields
  end
end
return { queues, call('HGETALL', P .. 'pause'), call('HGETALL', P .. 'tl'), call('HGETALL', P .. 'orders'), call('SMEMBERS', P .. 'ls') }
