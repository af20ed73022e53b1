-- The doors between states: index, counters and event go with every step. No script touches an index of a job by itself.
--- @include "lib/batch"
--- @include "lib/release"

local NORMAL, ATTEMPTS = 2, 5 -- what a job's hash leaves out
local seq_next, seq_last = 0, -1
local lanes, fresh = {}, {} -- lanes met in this call, by queue, priority, band type, name; those of them that got work

-- A job that lost a worker waits in a band of its own, so that poison does not take its neighbours along again.
local function band_type(ty, losses)
  return (tonumber(losses) or 0) > 0 and ty .. '!' or ty
end

-- A lane: jobs of one queue, priority and type, and where they have any, of one fairness key and one set of limiters: then it has a name, and
-- takes turns with its like in a ring (PROTOCOL.md, "Fetch").
local function lane_of(queue, prio, btype, name)
  prio = tonumber(prio) or NORMAL
  local of_queue = lanes[queue]
  if not of_queue then
    of_queue = {}
    lanes[queue] = of_queue
  end
  local of_level = of_queue[prio]
  if not of_level then
    of_level = {}
    of_queue[prio] = of_level
  end
  local id = name and btype .. '/' .. name or btype
  local lane = of_level[id]
  if not lane then
    local band = prio .. '/' .. btype
    lane = { key = P .. 'lane:' .. queue .. '/' .. band .. '/' .. (name or '-'), queue = queue, band = band, btype = btype, waiting = queue .. '/w', got = 0 }
    if name then -- lanes with the same limiters share a ring
      band = band .. (string.match(name, '~.*') or '')
      lane.name, lane.prio, lane.ring, lane.band = name, prio, P .. 'ring:' .. queue .. '/' .. band, band .. '*'
    end
    of_level[id] = lane
  end
  return lane
end

-- Arrival order for n jobs of this call.
local function reserve_seq(n)
  seq_last = call('HINCRBY', KEYS[1], 'seq', n)
  seq_next = seq_last - n
end

local function seq()
  if seq_next >= seq_last then reserve_seq(1) end
  seq_next = seq_next + 1
  return seq_next
end

-- Into its lane: at the end, or before all others of its level. What comes back was the oldest of them when it was claimed.
local function into_lane(lane, id, first, is_lifo)
  local score
  if is_lifo then
    score = -seq() -- the latest of these first, behind what came back
  elseif first then
    local head = call('ZRANGE', lane.key, 0, 0, 'WITHSCORES')
    score = math.min(0, head[2] and tonumber(head[2]) - 1 or 0)
  else
    score = seq()
  end
  add(lane.key, score, id)
  if lane.got == 0 then fresh[#fresh + 1] = lane end
  lane.got = lane.got + 1
  count(lane.waiting, 1)
end

local function into_delayed(id, queue, due)
  add(P .. 'delayed', due, id)
  count(queue .. '/d', 1)
  falls_due(due)
end

-- A job that must not begin late stands in `exp` for as long as it has not begun.
local function into_expiring(id, ex)
  add(P .. 'exp', ex, id)
  falls_due(tonumber(ex))
end

-- An end that somebody wants to hear of goes into the outbox in this very step. What tells of ends is not told of itself.
local DELIVERY, OUTBOX_KEPT = 'taskmaster-webhook', 100000
local is_heard, is_listened -- whether anybody wants to hear of any, and an endpoint of all; asked once a call, and only by calls that end something
local is_bounded -- whether this call has looked how much lies there
local function note_end(id, queue, state)
  local url = call('HGET', P .. 'cb', id)
  if is_listened == nil then is_listened = call('EXISTS', P .. 'whl') == 1 end
  if not url and not is_listened then return end
  local f = call('HMGET', P .. 'j:' .. id, 'ty', 'ep', 'hb', 'rs')
  if url then call('HDEL', P .. 'cb', id) end
  if f[1] == DELIVERY then return end
  if not is_bounded then -- should nobody take ends out, the oldest go, and are counted; XADD's own MAXLEN would not say how many
    is_bounded = true
    local dropped = call('XTRIM', P .. 'ob', 'MAXLEN', '~', OUTBOX_KEPT)
    if dropped > 0 then
      call('HINCRBY', P .. 'obd', 'n', dropped)
      call('HSET', P .. 'obd', 'at', NOW)
    end
  end
  call('XADD', P .. 'ob', '*', 'id', id, 'st', state, 'q', queue, 'ty', f[1] or '', 'at', (tonumber(f[2]) or 0) - (tonumber(f[3]) or 0),
    'rs', state ~= 'c' and f[4] or '', 'fa', NOW, 'url', url or '')
end

-- The hash says already how it ended. bytes: of what was submitted (`sz`) and what came of it (`rz`).
local function into_finished(id, queue, state, bytes)
  if is_heard == nil then is_heard = call('EXISTS', P .. 'cb', P .. 'whl') > 0 end
  if is_heard then note_end(id, queue, state) end
  local field = queue .. '/' .. state
  add(P .. 'fin:' .. field, NOW, id)
  count(field, 1)
  if bytes > 0 then count(field .. '/bytes', bytes) end
end

-- The error of an earlier attempt, which stays beside a job that ended without one of its own; noted for the count of bytes.
local function keep_old_error(id, failures)
  local bytes = failures and call('STRLEN', P .. 'r:' .. id) or 0
  if bytes > 0 then call('HSET', P .. 'j:' .. id, 'rz', bytes) end
  return bytes
end

-- The job has ended: its key is remembered for the window, and in any case for as long as its submission might still be taken.
local KEY_KEPT_MS = 60000
local function let_key_go(key, window)
  call('PEXPIRE', P .. 'k:' .. key, math.max(window, KEY_KEPT_MS))
end

-- Out of where a job that is not active stands.
local function out_of_rest(id, state, queue, prio, btype, name)
  if state == 'w' then
    rem(lane_of(queue, prio, btype, name).key, id)
  elseif state == 'd' then
    rem(P .. 'delayed', id)
  else
    rem(P .. 'blocked', id)
  end
  count(queue .. '/' .. state, -1)
end

-- The only door out of `active`. held: what the attempt held of limiters, as the job's hash has it, if anything.
local function out_of_active(id, queue, held)
  rem(P .. 'active', id)
  count(queue .. '/a', -1)
  if held then give_back(id, held) end
end

-- Who holds a token: tokens are `<consumer>.<call>`.
local function owner(token)
  return string.match(token or '', '^[^.]+') or ''
end

-- The fairness key of a lane: what stands before its limiters, `-` for none.
local function key_of(name)
  local key = string.match(name, '^[^~]*')
  return key ~= '' and key or '-'
end

-- Where the turn of a lane that comes into its ring is: behind what its key had already, not before what is over.
local starts = {} -- virtual time, by level
local function start_tag(lane)
  local level = lane.queue .. '/' .. lane.prio
  starts[level] = starts[level] or tonumber(call('HGET', P .. 'vt:' .. lane.queue, 'v' .. lane.prio) or 0)
  return math.max(starts[level], tonumber(call('ZSCORE', P .. 'flow:' .. level, key_of(lane.name)) or 0))
end

-- Bands that have work now are listed, so that a fetch of this very call sees them; a lane with a name stands in its ring, where its key's turn is.
local function open_bands()
  local opened = {}
  for _, lane in ipairs(fresh) do
    if lane.ring and not lane.is_new then lane.is_new = call('ZADD', lane.ring, 'NX', start_tag(lane), lane.name) == 1 end
    local band = lane.queue .. '/' .. lane.band
    if not opened[band] then
      opened[band] = true
      call('SADD', P .. 'bands:' .. lane.queue, lane.band)
    end
  end
end

-- After the indexes are written: wake whoever can do what became ready, but for bands that the caller has looked at itself, and for work that
-- waits for a limiter with its lane, band or queue.
local function announce(looked)
  local bands, order = {}, {}
  for _, lane in ipairs(fresh) do
    local unit = lane.queue .. '/' .. lane.band
    if not (looked and looked[unit]) and (not lane.ring or lane.is_new or call('ZSCORE', lane.ring, lane.name) ~= 'inf') then
      local band = bands[unit]
      if not band then
        band = { lane = lane, unit = unit, got = 0 }
        bands[unit], order[#order + 1] = band, band
      end
      band.got = band.got + lane.got
    end
  end
  for _, band in ipairs(order) do
    local waits = call('SMISMEMBER', P .. 'parked', band.lane.queue, band.unit)
    if waits[1] == 0 and waits[2] == 0 then wake(band.lane.queue, band.lane.btype, math.min(band.got, 4)) end
  end
  if waits_due then tell_keeper(waits_due) end
end
