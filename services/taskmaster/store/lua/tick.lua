--[[ tick — once a second, by whichever process comes first: forget dead consumers, wake somebody for work that nobody was told of.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   grace ms, now ('' = server time)
OUT    [0] another process had this second | [1, leases to reap, jobs to promote or cancel as expired and limiters to look at, 1 when it is time to prune,
       0 no sweep is due, 1 one is due or under way, 2 at once: the store lost something, operations to look after, ends to tell of, ends that were dropped since this was last said]
REPEAT another process had this second ]]
--- @include "lib/wake"

local grace = tonumber(ARGV[1])
local TICK_MS, PRUNE_MS, DEAD_A_CALL = 1000, 10000, 20

local duties = call('HMGET', P .. 'maint', 'tick', 'prune')
if duties[1] and tonumber(duties[1]) > now and tonumber(duties[1]) <= now + TICK_MS then return { 0 } end
call('HSET', P .. 'maint', 'tick', now + TICK_MS - 50)
local prune = (not duties[2] or tonumber(duties[2]) <= now) and 1 or 0
if prune == 1 then call('HSET', P .. 'maint', 'prune', now + PRUNE_MS) end

-- A foreign key must not stop the tick.
local sweep = redis.pcall('HMGET', P .. 'sweep', 'at', 'due', 'lostAt', 'ended')
local to_sweep = 0
if not sweep.err and ((sweep[1] and sweep[1] ~= '') or (tonumber(sweep[2]) or 0) <= now) then
  to_sweep = (tonumber(sweep[3]) or 0) > (tonumber(sweep[4]) or 0) and 2 or 1
end

local operations, outbox = redis.pcall('ZCARD', P .. 'ops'), redis.pcall('XLEN', P .. 'ob')
local lost = redis.pcall('HMGET', P .. 'obd', 'n', 'said')
local dropped = lost.err and 0 or math.max(0, (tonumber(lost[1]) or 0) - (tonumber(lost[2]) or 0))
if dropped > 0 then call('HSET', P .. 'obd', 'said', lost[1]) end

local queues = call('SMEMBERS', P .. 'qs')
for _, wid in ipairs(call('ZRANGEBYSCORE', P .. 'ws', '-inf', now, 'LIMIT', 0, DEAD_A_CALL)) do
  local cap = call('HGET', P .. 'w:' .. wid, 'cap')
  call('ZREM', P .. 'ws', wid)
  call('UNLINK', P .. 'in:' .. wid)
  if cap then
    for _, queue in ipairs(queues) do call('ZREM', P .. 'idle:' .. queue .. '/' .. cap, wid) end
  end
end
local keeper = call('HGET', P .. 'keeper', 'wid')
if not keeper or not is_alive(keeper) then find_keeper() end
for _, queue in ipairs(queues) do wake_all_bands(queue) end
local due = 0
for _, index in ipairs({ 'delayed', 'exp', 'kick' }) do due = due + call('ZCOUNT', P .. index, '-inf', now) end
return { 1, call('ZCOUNT', P .. 'active', '-inf', now - grace), due, prune, to_sweep, type(operations) == 'number' and operations or 0,
  type(outbox) == 'number' and outbox or 0, dropped }
