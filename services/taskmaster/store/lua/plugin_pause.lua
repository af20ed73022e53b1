--[[ plugin_pause — claim nothing more of any type of a plugin, also of those that it registers later; or go on.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   plugin, pause or resume, revision that it was decided on ('' = whatever is there), op (random, of this request), who, reason,
       now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] (this request, or so it is already) | [CONFLICT, revision] (changed since)
REPEAT ALREADY ]]
--- @include "lib/types"
--- @include "lib/audit"

local plugin, what, known, op, who, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local scope = 'p/' .. plugin

local orders = call('HMGET', P .. 'orders', scope .. '/rev', scope .. '/op')
local rev, is_paused = tonumber(orders[1]) or 0, call('HEXISTS', P .. 'pause', scope) == 1
if orders[2] == op or is_paused == (what == 'pause') then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
call('HSET', P .. 'orders', scope .. '/rev', rev + 1, scope .. '/op', op)
record_audit(who, what == 'pause' and 'paused' or 'resumed', scope, reason, '')
if what == 'pause' then
  local order = cjson.encode({ who = who, reason = reason, since = now })
  call('HSET', P .. 'pause', scope, order)
  for _, ty in ipairs(call('HKEYS', P .. 'cat')) do
    if published(ty).plugin == plugin then pause_with(plugin, order, ty) end
  end
else
  call('HDEL', P .. 'pause', scope)
  local pauses = call('HGETALL', P .. 'pause')
  for i = 1, #pauses, 2 do
    if cjson.decode(pauses[i + 1]).plugin == plugin then call('HDEL', P .. 'pause', pauses[i]) end
  end
  for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do wake_all_bands(queue) end
end
return { STATUS.OK, rev + 1 }
