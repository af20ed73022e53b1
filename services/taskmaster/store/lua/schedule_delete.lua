--[[ schedule_delete — a schedule goes, with its history. Nothing is fired for it after the answer; its jobs stay.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, version that it was decided on ('' = whatever is there), who, reason, now ('' = server time)
OUT    [OK] | [CONFLICT, version] (changed since) | [GONE]
REPEAT GONE ]]
--- @include "lib/audit"

local id, known, who, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = P .. 'sc:' .. id

local f = call('HMGET', key, 'ver', 'spec')
if not f[1] then return { STATUS.GONE } end
if known ~= '' and known ~= f[1] then return { STATUS.CONFLICT, tonumber(f[1]) } end
call('UNLINK', key, P .. 'scfire:' .. id)
call('ZREM', P .. 'scdue', id)
call('ZREM', P .. 'scall', id)
call('ZREM', P .. 'scmissed', id)
call('SREM', P .. 'scheld', id)
record_audit(who, 'schedule.deleted', id, reason, f[2])
return { STATUS.OK }
