--[[ schedule_put — make a schedule, change it, or only pause or resume it.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, op (random, of this request), version that it was decided on ('' = whatever is there, 0 = there is none yet),
       last instant dealt with when that was read ('' = none): what is next was chosen with it in view,
       spec (JSON; '' = as it is), next instant ms ('' = none), when that is due ms,
       enabled (1, 0, '' = as it is), who, reason, declaration (JSON with plugin and version; '' = a person's word), now ('' = server time)
OUT    [OK, version] | [ALREADY, version] (this request; a declaration of this version or a later one) | [CONFLICT, version] (changed or fired since: read it
       again; a declaration: it is a person's own, or another plugin's) | [DONE, version] (a declaration: a person changed it, and that stays) | [GONE]
REPEAT ALREADY ]]
--- @include "lib/audit"

local id, op, known, known_last = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local spec, next_at, due, enabled = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local who, reason, declared = ARGV[9], ARGV[10], ARGV[11]
local key = P .. 'sc:' .. id

local f = call('HMGET', key, 'ver', 'op', 'last', 'decl', 'own', 'paused')
local version, has_plugin = tonumber(f[1]) or 0, declared ~= ''
if f[2] == op then return { STATUS.ALREADY, version } end
if has_plugin and version > 0 then
  if not f[4] then return { STATUS.CONFLICT, version } end
  local had, has = cjson.decode(f[4]), cjson.decode(declared)
  if had.plugin ~= has.plugin then return { STATUS.CONFLICT, version } end
  if had.version >= has.version then return { STATUS.ALREADY, version } end
  if f[5] then
    call('HSET', key, 'decl', declared)
    return { STATUS.DONE, version }
  end
end
if spec == '' and version == 0 then return { STATUS.GONE, 0 } end
if (known ~= '' and tonumber(known) ~= version) or (f[3] or '') ~= known_last then return { STATUS.CONFLICT, version } end

if spec ~= '' then
  version = version + 1
  call('HSET', key, 'spec', spec, 'ver', version, 'def', op, 'at', NOW, 'by', who)
  if version == 1 then call('HSET', key, 'made', NOW) end
  if has_plugin then
    call('HSET', key, 'decl', declared)
  elseif f[4] then
    call('HSET', key, 'own', 1)
  end
  call('ZADD', P .. 'scall', 0, id)
end
local is_paused = f[6]
if enabled == '0' and not is_paused then
  is_paused = true
  call('HSET', key, 'paused', cjson.encode({ who = who, reason = reason, since = now }))
elseif enabled == '1' and is_paused then
  is_paused = false
  call('HDEL', key, 'paused')
end
call('HSET', key, 'op', op)
call('HDEL', key, 'was', 'next')
if next_at ~= '' then call('HSET', key, 'next', next_at) end
if next_at ~= '' and not is_paused then
  call('ZADD', P .. 'scdue', due, id)
else
  call('ZREM', P .. 'scdue', id)
end
record_audit(who, has_plugin and 'schedule.declared' or spec ~= '' and 'schedule.put' or enabled == '1' and 'schedule.resumed' or 'schedule.paused', id, reason, spec)
return { STATUS.OK, version }
