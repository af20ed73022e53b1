--[[ cycle — one round of a consumer: end what it finished, promote what is due, claim what it has room for, say when to come again.
FLAGS  allow-oom: it is the way out of a full store
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   gen, wid, seq (1, 2, 3 … one call in flight), lease ms,
       finishes (MessagePack list, eight values a finish, at most 256: id, token, outcome, body, history row, delay ms, reason, fingerprint;
       outcome c completed, r retry, f dead letter, x discard, h hand back, s snooze, d dependency down, l rate limited by it; delay ms, reason
       and fingerprint only count for r, f, s, d, l; reason dependency_down of r: counts against the dependency as well),
       wants (MessagePack list of groups [slots, queue, queue …], at most 64 queues; the queues of a group share its slots; 0 slots:
       only says that it does not sleep there), keep (MessagePack of calls.Limits: [key window ms, completed, failed, cancelled; each [count, age ms, bytes or -1] per queue;
       {queue: the same three}]),
       now ('' = server time)
OUT    [OK, now ms, finish codes, claims (MessagePack list of [id, queue, epoch, attempt, failures, due ms or 0]), their blobs in the same order, ms until the
       next due time or -1, 1 if more work was cut off by a bound], and if there are any the ids of the claims that run the fallback of their type;
       the token of the claims is `wid.seq`;
       [STALE_OP] | [UNREGISTERED] | [GENERATION] | [REWOUND] (rounds that were answered are forgotten): nothing was done
REPEAT equal seq: the finishes answer ALREADY, the claims are those of the first run that are still current. Smaller seq: STALE_OP ]]
--- @include "lib/state"
--- @include "lib/bury"
--- @include "lib/purge"
--- @include "lib/promote"
--- @include "lib/share"
--- @include "lib/breaker"

local gen, wid, this_seq, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local finishes, wants, keep = cmsgpack.unpack(ARGV[5]), cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7])
local token, window, expiry = wid .. '.' .. this_seq, keep[1], string.format('%d', now + lease_ms)
local WIDTH = 8 -- one flat list: a table an item costs more than its values
local PROMOTED_A_CALL, EXPIRED_A_CALL = 100, 100

-- ---------------------------------------------------------------- may this call run at all
if call('HGET', KEYS[1], 'gen') ~= gen then return { STATUS.GENERATION } end
local me = call('HMGET', P .. 'w:' .. wid, 'seq', 'cap', 'left')
if not me[1] or me[3] then return { STATUS.UNREGISTERED } end
local heard, cap = tonumber(me[1]), me[2]
claimer.cap, claimer.token, claimer.expiry, claimer.window = cap, token, expiry, window
if this_seq < heard then return { STATUS.STALE_OP } end
if this_seq > heard + 1 then return { STATUS.REWOUND } end

-- ---------------------------------------------------------------- finish
local values, ended, completed = {}, {}, {} -- results to store; how many ended, by queue and state

local function ended_as(state, queue)
  local of_queue = ended[queue]
  if not of_queue then
    of_queue = {}
    ended[queue] = of_queue
  end
  of_queue[state] = (of_queue[state] or 0) + 1
end

-- What the hash of a completed job says besides: whether its fallback did it.
local NOTHING, FELL_BACK = {}, { 'fb', 1 }

local function finish(id, its_token, outcome, body, row, delay_ms, reason, fingerprint)
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'st', 'q', 'ty', 'kx', 'tk', 'sz', 'hl')
  if f[1] ~= 'a' or f[5] ~= its_token then
    -- A terminal job keeps the token that ended it; one that goes on keeps it in `en`.
    if f[1] ~= 'a' and f[5] == its_token or call('HGET', key, 'en') == its_token then return STATUS.ALREADY end
    return STATUS.STALE
  end
  local queue, ty, keyed, size = f[2], f[3], f[4], tonumber(f[6]) or 0
  if row ~= '' then remember_attempt(id, row) end
  out_of_active(id, queue, f[7])
  if f[7] then
    if outcome ~= 'c' then call('HDEL', key, 'hl') end -- a completed job has no next attempt that it could be taken for
    hear_end(key, f[7], outcome, reason, delay_ms)
  end
  if outcome == 'c' then
    local rest = f[7] and is_fallback(f[7]) and FELL_BACK or NOTHING
    if keyed then let_key_go(keyed, window) end
    if body ~= '' then
      call('HSET', key, 'st', 'c', 'fa', NOW, 'rz', #body, unpack(rest))
      local n = #values
      values[n + 1], values[n + 2] = P .. 'r:' .. id, body
    else
      call('HSET', key, 'st', 'c', 'fa', NOW, unpack(rest))
      if row ~= '' then call('UNLINK', P .. 'r:' .. id) end -- the error of an earlier attempt
    end
    into_finished(id, queue, 'c', size + #body)
    ended_as('c', queue)
    completed[ty] = completed[ty] or {}
    completed[ty][queue] = (completed[ty][queue] or 0) + 1
    tell('c', id)
    return STATUS.OK
  end
  local job = call('HMGET', key, 'pr', 'ma', 'ls', 'hb', 'rt', 'fl', 'ep', 'cr', 'ln', 'ex')
  if job[8] or outcome == 'x' then -- every other end of an attempt looks at the cancel request
    call('HSET', key, 'st', 'x', 'fa', NOW, 'rs', job[8] and 'cancelled' or 'discarded')
    if keyed then let_key_go(keyed, window) end
    if body ~= '' then
      call('SET', P .. 'r:' .. id, body)
      call('HSET', key, 'rz', #body)
    end
    into_finished(id, queue, 'x', size + (body ~= '' and #body or keep_old_error(id, job[6])))
    ended_as('x', queue)
    count(ty .. '/' .. queue .. '/cancelled', 1)
    tell('x', id)
    return STATUS.OK
  end
  if outcome == 'h' then
    if job[10] then into_expiring(id, job[10]) end
    call('HSET', key, 'st', 'w', 'en', its_token, 'tk', '', 'hb', (tonumber(job[4]) or 0) + 1)
    into_lane(lane_of(queue, job[1], band_type(ty, job[3]), job[9]), id, true)
    tell('h', id)
    return STATUS.OK
  end
  local due = now + delay_ms
  local failures, is_over_budget = (tonumber(job[6]) or 0) + 1, false
  if outcome == 'd' and not may_wait(key, f[7]) then outcome = 'r' end
  local is_retried = outcome == 'r' and failures < (tonumber(job[2]) or ATTEMPTS)
  if f[7] and (is_retried or outcome == 'd') then due, is_over_budget = within_budget(f[7], due) end
  if outcome == 's' or outcome == 'd' or outcome == 'l' then
    if job[10] then into_expiring(id, job[10]) end
    local why = is_over_budget and 'retry_budget' or reason
    call('HSET', key, 'st', 'd', 'en', its_token, 'tk', '', 'hb', (tonumber(job[4]) or 0) + 1, 'ra', due, 'rs', why)
    if body ~= '' then
      call('SET', P .. 'r:' .. id, body)
      call('HSET', key, 'fl', job[6] or 0) -- where failures are counted, if only as none, there may be an error
    end
    into_delayed(id, queue, due)
    tell('h', id)
    return STATUS.OK
  end
  count(ty .. '/' .. queue .. '/attempts_failed', 1)
  if is_retried then
    if job[10] then into_expiring(id, job[10]) end
    call('HSET', key, 'st', 'd', 'en', its_token, 'tk', '', 'fl', failures, 'ra', due, 'rs', is_over_budget and 'retry_budget' or 'retrying')
    call('SET', P .. 'r:' .. id, body)
    into_delayed(id, queue, due)
    count(ty .. '/' .. queue .. '/retried', 1)
    tell('r', id)
    return STATUS.OK
  end
  call('HSET', key, 'fl', failures)
  bury(id, { q = queue, ty = ty, kx = keyed, ep = job[7], hb = job[4], ls = job[3], rt = job[5], fl = job[6], sz = f[6], tk = its_token,
    ow = owner(its_token) }, outcome == 'r' and 'attempts_exhausted' or reason, body, fingerprint, window)
  ended_as('f', queue)
  return STATUS.OK
end

local codes = {}
for i = 1, #finishes / WIDTH do codes[i] = finish(unpack(finishes, (i - 1) * WIDTH + 1, i * WIDTH)) end
write_breakers() -- limiters are read after this
if #values > 0 then call('MSET', unpack(values)) end
for ty, queues in pairs(completed) do
  for queue, n in pairs(queues) do count(ty .. '/' .. queue .. '/completed', n) end
end

-- ---------------------------------------------------------------- promote, expire, kick
local head = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')[2]
if head and tonumber(head) <= now and promote(PROMOTED_A_CALL) == 1 then more = 1 end
write_indexes()
kick_freed()
if some_flow or waits_due then -- what this call has put into a lane may be too late as well
  if expire_due(EXPIRED_A_CALL, window) == 1 then more = 1 end
  write_indexes()
  kick()
end
open_bands()

-- ---------------------------------------------------------------- claim
local passed_on = {}

-- One group: filled from its queues by their weights; whoever has room left says that it sleeps on each of them. Whoever was picked
-- for a queue and now has no room to look into it passes the call on.
local function fill(group)
  local left, seen = group[1], {}
  if left > 0 and #group == 2 then
    left, seen = left - fetch(group[2], left), { [group[2]] = true }
  elseif left > 0 then
    left, seen = fetch_by_weight({ unpack(group, 2) }, left)
  end
  for i = 2, #group do
    local idle = P .. 'idle:' .. group[i] .. '/' .. cap
    if left > 0 then
      call('ZADD', idle, this_seq, wid)
    elseif call('ZREM', idle, wid) == 0 and not seen[group[i]] then
      passed_on[#passed_on + 1] = group[i]
    end
  end
end

if this_seq == heard then -- the reply was lost: the same claims again, as far as they still stand
  local held = call('HGET', P .. 'w:' .. wid, 'claims') or ''
  for i = 1, #held, 36 do
    local id = string.sub(held, i, i + 35)
    local f = call('HMGET', P .. 'j:' .. id, 'st', 'ep', 'hb', 'fl', 'tk', 'q', 'hl', 'ra')
    if f[1] == 'a' and f[5] == token then
      claim(id, f[6], tonumber(f[2]), f, f[8])
      if f[7] and is_fallback(f[7]) then fallbacks[#fallbacks + 1] = id end
    end
  end
else
  for _, group in ipairs(wants) do fill(group) end
  call('HSET', P .. 'w:' .. wid, 'seq', this_seq, 'claims', table.concat(ids))
end
local blobs = {}
if #ids > 0 then
  for i, id in ipairs(ids) do blobs[i] = P .. 'b:' .. id end
  blobs = call('MGET', unpack(blobs))
end
write_indexes()
write_rates()

-- ---------------------------------------------------------------- wake others, keep the next due time in view
kick_again(looked)
some_flow = some_flow or waits_due ~= nil
waits_due = nil -- said below, by the keeper's rule
announce(looked)
for _, left in ipairs(leftovers) do wake(left[1], left[2], 1) end
for _, queue in ipairs(passed_on) do wake_all_bands(queue) end
head = next_due(some_flow)
local keeper = call('HMGET', P .. 'keeper', 'wid', 'due')
local next_ms = -1
if not keeper[1] or keeper[1] == wid or not is_alive(keeper[1]) then
  if keeper[1] ~= wid or keeper[2] ~= (head or '') then call('HSET', P .. 'keeper', 'wid', wid, 'due', head or '') end
  if head then next_ms = math.max(0, tonumber(head) - now) end
elseif head then
  tell_keeper(tonumber(head))
end

-- ---------------------------------------------------------------- retention keeps pace with production
for queue, states in pairs(ended) do
  for state, n in pairs(states) do
    local rule = kept(keep, queue, state)
    prune_index(queue, state, rule[1], 2 * n + 16, rule[3])
  end
end
write_indexes()
write_purged()
write_rest()
return { STATUS.OK, now, codes, cmsgpack.pack(claims), blobs, next_ms, more, #fallbacks > 0 and fallbacks or nil }
