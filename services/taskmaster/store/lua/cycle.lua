--[[ cycle — one round of a consumer: end what it finished, promote what is due, claim what it has room for, say when to come again.
FLAGS  allow-oom: it is the way out of a full store
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   gen, wid, seq (1, 2, 3 … one call in flight), token (new in every call), lease ms,
       finishes (MessagePack list, at most 256 of [id, epoch, token, outcome, delay ms, reason, body, fingerprint, history row];
       outcome c completed, r retry, f dead letter, x discard, h hand back, s snooze; after c only body and row count),
       wants (MessagePack list, at most 64 of [queue, slots]), keep (MessagePack [key window ms, completed, failed, cancelled kept per queue]),
       now ('' = server time)
OUT    [OK, now ms, finish codes, claims, ms until the next due time or -1, 1 if more work was cut off by a bound];
       a claim is [id, queue, epoch, attempt, failures, losses, priority, root id or '', blob];
       [STALE_OP] | [UNREGISTERED] | [GENERATION]: nothing was done
REPEAT equal seq: the finishes answer ALREADY, the claims are those of the first run that are still current. Smaller seq: STALE_OP ]]
--- @include "lib/status"
--- @include "lib/state"
--- @include "lib/bury"
--- @include "lib/purge"
--- @include "lib/promote"

local gen, wid, this_seq, token, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local finishes, wants, keep = cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7]), cmsgpack.unpack(ARGV[8])
local window = keep[1]
local PROMOTED_A_CALL, CLAIMED_A_CALL = 100, 256
local WEIGHT = { [0] = 8, 4, 2, 1 }
local STRIDE = 5040 -- divisible by every weight from 1 to 10

-- ---------------------------------------------------------------- may this call run at all
if call('HGET', KEYS[1], 'gen') ~= gen then return { STATUS.GENERATION } end
local me = call('HMGET', P .. 'w:' .. wid, 'seq', 'cap')
if not me[1] then return { STATUS.UNREGISTERED } end
local heard, cap = tonumber(me[1]), me[2]
if this_seq < heard then return { STATUS.STALE_OP } end

-- ---------------------------------------------------------------- finish
local values, ended_in = {}, {}

local function finish(item)
  local id, epoch, its_token, outcome = item[1], item[2], item[3], item[4]
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'st', 'ep', 'tk', 'en', 'q', 'ty', 'kx', 'cr', 'fl')
  if f[1] ~= 'a' or tonumber(f[2]) ~= epoch or f[3] ~= its_token then
    return f[4] == its_token and STATUS.ALREADY or STATUS.STALE
  end
  local queue, ty, keyed = f[5], f[6], f[7]
  local row = item[9]
  if row and row ~= '' then remember_attempt(id, row) end
  out_of_active(id, queue)
  if outcome == 'c' then
    call('HSET', key, 'st', 'c', 'fa', now, 'en', its_token, 'tk', '')
    if keyed then call('PEXPIRE', P .. 'k:' .. keyed, window) end
    local n = #values
    if item[7] ~= '' then
      values[n + 1], values[n + 2] = P .. 'r:' .. id, item[7]
    elseif epoch > 1 then
      call('UNLINK', P .. 'r:' .. id) -- the error of an earlier attempt
    end
    into_finished(id, queue, 'c')
    count(ty .. '/' .. queue .. '/completed', 1)
    ended_in[queue] = ended_in[queue] or {}
    ended_in[queue].c = (ended_in[queue].c or 0) + 1
    tell('c', id)
    return STATUS.OK
  end
  if f[8] or outcome == 'x' then -- every other end of an attempt looks at the cancel request
    call('HSET', key, 'st', 'x', 'fa', now, 'en', its_token, 'tk', '', 'rs', f[8] and 'cancelled' or 'discarded')
    if keyed then call('PEXPIRE', P .. 'k:' .. keyed, window) end
    if item[7] ~= '' then call('SET', P .. 'r:' .. id, item[7]) end
    into_finished(id, queue, 'x')
    count(ty .. '/' .. queue .. '/cancelled', 1)
    ended_in[queue] = ended_in[queue] or {}
    ended_in[queue].x = (ended_in[queue].x or 0) + 1
    tell('x', id)
    return STATUS.OK
  end
  local job = call('HMGET', key, 'pr', 'ma', 'ls', 'hb', 'ca', 'rt', 'ow')
  if outcome == 'h' then
    call('HSET', key, 'st', 'w', 'en', its_token, 'tk', '', 'hb', (tonumber(job[4]) or 0) + 1)
    into_lane(id, queue, job[1], band_type(ty, job[3]), true)
    tell('h', id)
    return STATUS.OK
  end
  if outcome == 's' then
    local due = now + item[5]
    call('HSET', key, 'st', 'd', 'en', its_token, 'tk', '', 'hb', (tonumber(job[4]) or 0) + 1, 'ra', due, 'rs', item[6])
    into_delayed(id, queue, due)
    tell('h', id)
    return STATUS.OK
  end
  local failures = (tonumber(f[9]) or 0) + 1
  count(ty .. '/' .. queue .. '/attempts_failed', 1)
  if outcome == 'r' and failures < tonumber(job[2]) then
    local due = now + item[5]
    call('HSET', key, 'st', 'd', 'en', its_token, 'tk', '', 'fl', failures, 'ra', due, 'rs', 'retrying')
    call('SET', P .. 'r:' .. id, item[7])
    into_delayed(id, queue, due)
    count(ty .. '/' .. queue .. '/retried', 1)
    tell('r', id)
    return STATUS.OK
  end
  call('HSET', key, 'en', its_token, 'fl', failures)
  bury(id, { q = queue, ty = ty, kx = keyed, ep = epoch, hb = job[4], ls = job[3], ca = job[5], rt = job[6], ow = job[7] },
    outcome == 'r' and 'attempts_exhausted' or item[6], item[7], item[8], window)
  ended_in[queue] = ended_in[queue] or {}
  ended_in[queue].f = (ended_in[queue].f or 0) + 1
  return STATUS.OK
end

local codes = {}
for i, item in ipairs(finishes) do codes[i] = finish(item) end
if #values > 0 then call('MSET', unpack(values)) end

-- ---------------------------------------------------------------- promote
local head = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')[2]
local more = 0
if head and tonumber(head) <= now then more = promote(PROMOTED_A_CALL) end
write_indexes()
open_bands()

-- ---------------------------------------------------------------- claim
local claims, ids, looked = {}, {}, {}

local function lease(id, prio, queue)
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'st', 'ep', 'hb', 'fl', 'ls', 'rt')
  if f[1] ~= 'w' then return end -- a foreign hand: the sweeper reports it
  local epoch = (tonumber(f[2]) or 0) + 1
  call('HSET', key, 'st', 'a', 'ep', epoch, 'tk', token, 'ow', wid, 'sa', now)
  add(P .. 'active', now + lease_ms, id)
  count(queue .. '/w', -1)
  count(queue .. '/a', 1)
  tell('a', id)
  local n = #claims + 1
  claims[n] = { id, queue, epoch, epoch - (tonumber(f[3]) or 0), tonumber(f[4]) or 0, tonumber(f[5]) or 0, tonumber(prio), f[6] or '', '' }
  ids[n] = id
end

-- The lanes of this queue whose types the caller has: levels[p] = list of {band, lane key, size}.
local function ready_levels(queue)
  local bands = call('SMEMBERS', P .. 'bands:' .. queue)
  if #bands == 0 then return {}, 0 end
  local types = {}
  for i, band in ipairs(bands) do types[i] = string.sub(band, 3) end
  local loaded = call('SMISMEMBER', P .. 'cap:' .. cap, unpack(types))
  local levels, ready, others = {}, 0, 0
  for i, band in ipairs(bands) do
    if loaded[i] == 1 then
      looked[queue .. '/' .. band] = true
      local lane = P .. 'lane:' .. queue .. '/' .. band .. '/-'
      local size = call('ZCARD', lane)
      if size == 0 then
        call('SREM', P .. 'bands:' .. queue, band)
      else
        local p = tonumber(string.sub(band, 1, 1))
        levels[p] = levels[p] or { size = 0 }
        table.insert(levels[p], { band = band, lane = lane, size = size })
        levels[p].size = levels[p].size + size
        ready = ready + size
      end
    else
      others = others + 1
    end
  end
  if ready == 0 and others == 0 then call('DEL', P .. 'vt:' .. queue) end -- an empty queue owes nobody anything
  return levels, ready
end

-- Whose turn it is, n times: smallest max(F[p], V), ties to the higher priority (PROTOCOL.md, "Fetch"). Answers the order of levels.
local function turns(queue, levels, n)
  local left = {}
  for p, level in pairs(levels) do left[p] = level.size end
  local tags = call('HMGET', P .. 'vt:' .. queue, 'V', '0', '1', '2', '3')
  local V, F = tonumber(tags[1]) or 0, {}
  for p = 0, 3 do F[p] = tonumber(tags[p + 2]) or 0 end
  local order = {}
  for i = 1, n do
    local best, tag
    for p = 0, 3 do
      if left[p] and left[p] > 0 then
        local its = math.max(F[p], V)
        if not tag or its < tag then
          best, tag = p, its
        end
      end
    end
    V, F[best], left[best], order[i] = tag, tag + STRIDE / WEIGHT[best], left[best] - 1, best
  end
  call('HSET', P .. 'vt:' .. queue, 'V', V, '0', F[0], '1', F[1], '2', F[2], '3', F[3])
  return order
end

-- The n oldest jobs of one level: straight off its lane, or merged by age when several types wait.
local function take(queue, level, n)
  local taken = {}
  if #level == 1 then
    local popped = call('ZPOPMIN', level[1].lane, n)
    for i = 1, #popped, 2 do taken[#taken + 1] = popped[i] end
    level[1].size = level[1].size - #taken
  else
    local heads = {}
    for _, band in ipairs(level) do
      local row = call('ZRANGE', band.lane, 0, n - 1, 'WITHSCORES')
      for i = 1, #row, 2 do heads[#heads + 1] = { row[i], tonumber(row[i + 1]), band } end
    end
    table.sort(heads, function(a, b) return a[2] < b[2] end)
    for i = 1, math.min(n, #heads) do
      taken[i] = heads[i][1]
      call('ZREM', heads[i][3].lane, heads[i][1])
      heads[i][3].size = heads[i][3].size - 1
    end
  end
  for _, band in ipairs(level) do
    if band.size == 0 then call('SREM', P .. 'bands:' .. queue, band.band) end
  end
  return taken
end

local leftovers = {}

local function fetch(queue, slots)
  local levels, ready = ready_levels(queue)
  local n = math.min(slots, ready, CLAIMED_A_CALL - #claims)
  if n > 0 then
    local order, share, took = turns(queue, levels, n), {}, {}
    for _, p in ipairs(order) do share[p] = (share[p] or 0) + 1 end
    for p, m in pairs(share) do took[p] = { at = 0, take(queue, levels[p], m) } end
    for _, p in ipairs(order) do
      local t = took[p]
      t.at = t.at + 1
      if t[1][t.at] then lease(t[1][t.at], p, queue) end
    end
  end
  if ready > n then
    for _, level in pairs(levels) do
      for _, band in ipairs(level) do
        if band.size > 0 then leftovers[#leftovers + 1] = { queue, string.sub(band.band, 3) } end
      end
    end
  end
  if n < slots then
    if n < ready then more = 1 end -- cut off by the bound on claims, not by want of work
    call('ZADD', P .. 'idle:' .. queue .. '/' .. cap, this_seq, wid)
  else
    call('ZREM', P .. 'idle:' .. queue .. '/' .. cap, wid)
  end
end

if this_seq == heard then -- the reply was lost: the same claims again, as far as they still stand
  local held = call('HGET', P .. 'w:' .. wid, 'claims') or ''
  for i = 1, #held, 36 do
    local id = string.sub(held, i, i + 35)
    local f = call('HMGET', P .. 'j:' .. id, 'st', 'tk', 'ep', 'hb', 'fl', 'ls', 'rt', 'q', 'pr')
    if f[1] == 'a' and f[2] == token then
      local epoch = tonumber(f[3])
      claims[#claims + 1] =
        { id, f[8], epoch, epoch - (tonumber(f[4]) or 0), tonumber(f[5]) or 0, tonumber(f[6]) or 0, tonumber(f[9]), f[7] or '', '' }
      ids[#ids + 1] = id
    end
  end
else
  for _, want in ipairs(wants) do fetch(want[1], want[2]) end
  call('HSET', P .. 'w:' .. wid, 'seq', this_seq, 'claims', table.concat(ids))
end
if #ids > 0 then
  local keys = {}
  for i, id in ipairs(ids) do keys[i] = P .. 'b:' .. id end
  for i, blob in ipairs(call('MGET', unpack(keys))) do claims[i][9] = blob or '' end
end
write_indexes()

-- ---------------------------------------------------------------- wake others, keep the next due time in view
wakes.due = nil -- said below, by the keeper's rule
announce(looked)
for _, left in ipairs(leftovers) do wake(left[1], left[2], 1) end
head = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')[2]
local keeper = call('HMGET', P .. 'keeper', 'wid', 'due')
local next_ms = -1
if not keeper[1] or keeper[1] == wid or not is_alive(keeper[1]) then
  if keeper[1] ~= wid or keeper[2] ~= (head or '') then call('HSET', P .. 'keeper', 'wid', wid, 'due', head or '') end
  if head then next_ms = math.max(0, tonumber(head) - now) end
elseif head then
  tell_keeper(tonumber(head))
end

-- ---------------------------------------------------------------- retention keeps pace with production
local KEPT = { c = keep[2], f = keep[3], x = keep[4] }
for queue, states in pairs(ended_in) do
  for state, n in pairs(states) do prune_index(queue, state, KEPT[state], 2 * n + 16) end
end
write_indexes()
write_purged()
write_rest()
return { STATUS.OK, now, codes, claims, next_ms, more }
