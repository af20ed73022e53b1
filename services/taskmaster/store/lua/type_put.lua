--[[ type_put — which limiters all jobs of a type need, by an operator's word.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   type, revision that the change was decided on ('' = whatever is there), op (random, of this request),
       limiters (names with commas, '' = none, '*' = as its plugin has it), who, reason, now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] | [CONFLICT, revision]
REPEAT ALREADY ]]
--- @include "lib/types"
--- @include "lib/audit"

local ty, known, op, names, who, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local field = 'l/' .. ty

local is = call('HMGET', P .. 'orders', field .. '/rev', field .. '/op')
local rev = tonumber(is[1]) or 0
if is[2] == op then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
if names == '*' then
  local its = published(ty).limits
  call('HDEL', P .. 'orders', field .. '/names')
  limit_type(ty, type(its) == 'table' and table.concat(its, ',') or '')
else
  call('HSET', P .. 'orders', field .. '/names', names)
  limit_type(ty, names)
end
call('HSET', P .. 'orders', field .. '/rev', rev + 1, field .. '/op', op)
record_audit(who, 'type.limits', ty, reason, names)
return { STATUS.OK, rev + 1 }
