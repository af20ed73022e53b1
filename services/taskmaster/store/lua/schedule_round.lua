--[[ schedule_round — a scheduler asks for what is due, and with that takes or keeps the lease of this partition. Lease 0: it goes.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid (random, of the process), lease ms, most schedules, now ('' = server time)
OUT    [OK, now ms, ms until the next one is due or -1, a row each that is due] | [CONFLICT, now ms, ms until the lease of another ends];
       a row is [id, next | held, instant, definition, spec, runs]; held: an instant that waited for the job before to end, which it has
REPEAT the same, as long as nothing has fired ]]
--- @include "lib/tag"
--- @include "lib/now"

local wid, lease_ms, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ALIVE_MS = 10000 -- a scheduler that was not heard of for so long is none
local LIVE = { w = true, d = true, a = true, b = true }
local SCHEDULERS = P .. 'scs'

local holder = call('HMGET', P .. 'scheduler', 'wid', 'till')
local till = tonumber(holder[2]) or 0
if lease_ms == 0 then
  call('ZREM', SCHEDULERS, wid)
  if holder[1] == wid then call('DEL', P .. 'scheduler') end
  return { STATUS.OK, now, -1 }
end
-- Beyond what a lease can be: the clock was set back, and that must not lock everybody out.
local mine = not holder[1] or holder[1] == wid or till <= now or till > now + 2 * lease_ms
call('ZREMRANGEBYSCORE', SCHEDULERS, '-inf', NOW)
local seen = tonumber(call('ZSCORE', SCHEDULERS, wid) or 0)
if seen < now + ALIVE_MS / 2 or seen > now + ALIVE_MS then call('ZADD', SCHEDULERS, now + ALIVE_MS, wid) end
if not mine then return { STATUS.CONFLICT, now, till - now } end
-- Not at every round: it would be written to disk each time.
if holder[1] ~= wid or till < now + lease_ms * 2 / 3 or till > now + lease_ms then call('HSET', P .. 'scheduler', 'wid', wid, 'till', now + lease_ms) end

local out = { STATUS.OK, now, -1 }
local function tell_of(id, slot)
  local f = call('HMGET', P .. 'sc:' .. id, slot, 'def', 'spec', 'runs', 'job', 'paused')
  if not f[1] or f[6] then return end
  if slot == 'held' and f[5] and LIVE[call('HGET', P .. 'j:' .. f[5], 'st') or ''] then return end
  out[#out + 1] = { id, slot, f[1], f[2], f[3], f[4] or '0' }
end

for _, id in ipairs(call('SRANDMEMBER', P .. 'scheld', most)) do tell_of(id, 'held') end
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'scdue', '-inf', NOW, 'LIMIT', 0, most)) do tell_of(id, 'next') end
local following = call('ZRANGEBYSCORE', P .. 'scdue', '(' .. NOW, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
if following then out[3] = tonumber(following) - now end
return out
