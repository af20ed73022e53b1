-- The doors between states: index, counters and event go with every step. No script touches an index of a job by itself.
--- @include "lib/batch"
--- @include "lib/wake"

local NORMAL, ATTEMPTS = 2, 5 -- what a job's hash leaves out
local waits_due, seq_next, seq_last = nil, 0, -1
local lanes, fresh = {}, {} -- lanes met in this call, by queue, priority, band type; those of them that got work

-- A job that lost a worker waits in a band of its own, so that poison does not take its neighbours along again.
local function band_type(ty, losses)
  return (tonumber(losses) or 0) > 0 and ty .. '!' or ty
end

local function lane_of(queue, prio, btype)
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
  local lane = of_level[btype]
  if not lane then
    local band = prio .. '/' .. btype
    lane = { key = P .. 'lane:' .. queue .. '/' .. band .. '/-', queue = queue, band = band, btype = btype, waiting = queue .. '/w', got = 0 }
    of_level[btype] = lane
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
local function into_lane(lane, id, first)
  local score
  if first then
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
  if not waits_due or due < waits_due then waits_due = due end
end

local function into_finished(id, queue, state)
  add(P .. 'fin:' .. queue .. '/' .. state, NOW, id)
  count(queue .. '/' .. state, 1)
end

-- The job has ended: its key is remembered for the window, and in any case for as long as its submission might still be taken.
local KEY_KEPT_MS = 60000
local function let_key_go(key, window)
  call('PEXPIRE', P .. 'k:' .. key, math.max(window, KEY_KEPT_MS))
end

-- Out of where a job that is not active stands.
local function out_of_rest(id, state, queue, prio, btype)
  if state == 'w' then
    rem(lane_of(queue, prio, btype).key, id)
  elseif state == 'd' then
    rem(P .. 'delayed', id)
  else
    rem(P .. 'blocked', id)
  end
  count(queue .. '/' .. state, -1)
end

-- The only door out of `active`.
local function out_of_active(id, queue)
  rem(P .. 'active', id)
  count(queue .. '/a', -1)
end

-- Who holds a token: tokens are `<consumer>.<call>`.
local function owner(token)
  return string.match(token or '', '^[^.]+') or ''
end

-- Bands that have work now are listed, so that a fetch of this very call sees them.
local function open_bands()
  for _, lane in ipairs(fresh) do call('SADD', P .. 'bands:' .. lane.queue, lane.band) end
end

-- After the indexes are written: wake whoever can do what became ready, but for bands that the caller has looked at itself.
local function announce(looked)
  for _, lane in ipairs(fresh) do
    if not (looked and looked[lane.key]) then wake(lane.queue, lane.btype, math.min(lane.got, 4)) end
  end
  if waits_due then tell_keeper(waits_due) end
end
