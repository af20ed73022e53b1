--[[ breaker_force — open a breaker until it is closed by order, or close it: from then on it is judged anew.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   dependency, open or close, revision that it was decided on ('' = whatever is there), op (random, of this request), who, reason,
       now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] | [CONFLICT, revision] (changed since) | [GONE] (there is no such breaker)
REPEAT ALREADY ]]
--- @include "lib/breaker"

local dependency, order, known, op, who, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local key = P .. 'L:!' .. dependency

local is = call('HMGET', key, 'kind', 'rev', 'op')
local rev = tonumber(is[2]) or 0
if is[1] ~= 'breaker' then return { STATUS.GONE } end
if is[3] == op then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
call('HDEL', key, 'till', 'good', 'bad', 'probes', 'opened', 'how')
call('HSET', key, 'rev', rev + 1, 'op', op, 'state', order == 'open' and 'open' or 'closed', 'how', order == 'open' and 'order' or '',
  'since', NOW, 'who', who, 'why', reason)
call('DEL', key .. ':c')
record_audit(who, order == 'open' and 'breaker.forced_open' or 'breaker.forced_closed', dependency, reason, '')
kick_at('!' .. dependency, now)
tell_keeper(now)
return { STATUS.OK, rev + 1 }
