--[[ queue_put — settings of a queue.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   queue, revision that the change was decided on ('' = whatever is there), op (random, of this request),
       settings (MessagePack map of what changes, '' = back to the default: lm limiters, strict, weights JSON of fairness keys, share of the slots of its
       group, max jobs that wait, drain),
       who, reason, now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] | [CONFLICT, revision]
REPEAT ALREADY ]]
--- @include "lib/release"
--- @include "lib/audit"

local queue, known, op, settings, who, reason = ARGV[1], ARGV[2], ARGV[3], cmsgpack.unpack(ARGV[4]), ARGV[5], ARGV[6]
local key = P .. 'q:' .. queue

local is = call('HMGET', key, 'rev', 'op', 'lm')
local rev, limits = tonumber(is[1]) or 0, is[3] or ''
if is[2] == op then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
if settings.weights and settings.weights ~= '' then cjson.decode(settings.weights) end -- what cannot be read would stop every fetch
for field, value in pairs(settings) do
  if value == '' then call('HDEL', key, field) else call('HSET', key, field, value) end
end
call('HSET', key, 'rev', rev + 1, 'op', op)
call('SADD', P .. 'qs', queue)
record_audit(who, 'queue.changed', queue, reason, cjson.encode(settings))
if settings.lm then -- it may be free of what it waited for, and so may be lanes of it
  for name in string.gmatch(limits, '[^,]+') do kick_at(name, now) end
end
call('SREM', P .. 'parked', queue)
wake_all_bands(queue)
if waits_due then tell_keeper(waits_due) end
return { STATUS.OK, rev + 1 }
