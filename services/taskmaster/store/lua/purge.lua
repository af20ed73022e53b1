--[[ purge — forget terminal jobs by id. Dead-letter records stay.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   ids (MessagePack list, at most 200), who ('' = nobody asked: it is not audited), reason, now ('' = server time)
OUT    a row an id: [OK] | [GONE] | [CONFLICT, state] (not terminal)
REPEAT answers GONE ]]
--- @include "lib/purge"
--- @include "lib/audit"

local who, reason = ARGV[2], ARGV[3]
local out, seen = {}, {}
for i, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local f = call('HMGET', P .. 'j:' .. id, 'st', 'ty', 'q', 'kx', 'rt', 'gd', 'sz', 'rz', 'tg', 'ux', 'lg')
  if not f[1] or seen[id] then
    out[i] = { STATUS.GONE }
  elseif f[1] == 'c' or f[1] == 'f' or f[1] == 'x' then
    rem(P .. 'fin:' .. f[3] .. '/' .. f[1], id)
    purge(id, f[2], f[3], f[4], f[5] or f[6] and id, f[9], f[10], f[11])
    uncount(f[3], f[1], 1, bytes_of(f[7], f[8]))
    if who ~= '' then record_audit(who, 'delete', id, reason, f[1]) end
    seen[id] = true
    out[i] = { STATUS.OK }
  else
    out[i] = { STATUS.CONFLICT, f[1] }
  end
end
write_indexes()
write_purged()
write_rest()
return out
