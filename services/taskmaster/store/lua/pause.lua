--[[ pause — claim nothing more of a queue, a type or a tenant, or go on.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   scope (q/<queue> | t/<type> | k/<fairness key as lanes spell it>), pause or resume, revision that it was decided on ('' = whatever is there), op (random, of this request), who, reason,
       name of a tenant as people spell it ('' = as the scope does), now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] (this request, or so it is already) | [CONFLICT, revision] (changed since)
REPEAT ALREADY ]]
--- @include "lib/limits"
--- @include "lib/wake"
--- @include "lib/audit"

local scope, order, known, op, who, reason, name = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local queue, tenant = string.match(scope, '^q/(.*)$'), string.match(scope, '^k/(.*)$')
local orders = call('HMGET', P .. 'orders', scope .. '/rev', scope .. '/op')
local rev, is_paused = tonumber(orders[1]) or 0, call('HEXISTS', P .. 'pause', scope) == 1
if orders[2] == op or is_paused == (order == 'pause') then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
call('HSET', P .. 'orders', scope .. '/rev', rev + 1, scope .. '/op', op)
record_audit(who, order == 'pause' and 'paused' or 'resumed', scope, reason, '')
if order == 'pause' then
  call('HSET', P .. 'pause', scope, cjson.encode({ who = who, reason = reason, since = now, name = name ~= '' and name or nil }))
  if queue then call('SADD', P .. 'parked', queue) end -- nobody is to be woken for what comes
else
  call('HDEL', P .. 'pause', scope)
  if queue then call('SREM', P .. 'parked', queue) end
  if tenant then -- its lanes wait for its gate, those that somebody has looked at
    kick_at(TENANTS .. '@' .. tenant, now)
    tell_keeper(now)
  else
    for _, its in ipairs(queue and { queue } or call('SMEMBERS', P .. 'qs')) do wake_all_bands(its) end
  end
end
return { STATUS.OK, rev + 1 }
