-- The doors between states: index, counters and event go with every step. No script touches an index of a job by itself.
--- @include "lib/batch"
--- @include "lib/wake"

local PRIORITIES = { [0] = 'critical', 'high', 'normal', 'low' }
local fresh_bands, wakes = {}, {}
local next_seq, last_seq = 0, -1

-- A job that lost a worker waits in a band of its own, so that poison does not take its neighbours along again.
local function band_type(ty, losses)
  return (tonumber(losses) or 0) > 0 and ty .. '!' or ty
end

local function lane_key(queue, prio, btype)
  return P .. 'lane:' .. queue .. '/' .. prio .. '/' .. btype .. '/-'
end

-- Arrival order for n jobs of this call.
local function reserve_seq(n)
  last_seq = call('HINCRBY', P .. 'meta', 'seq', n)
  next_seq = last_seq - n
end

local function seq()
  if next_seq >= last_seq then reserve_seq(1) end
  next_seq = next_seq + 1
  return next_seq
end

-- Into its lane: at the end, or before all others.
local function into_lane(id, queue, prio, btype, first)
  local lane = lane_key(queue, prio, btype)
  local score
  if first then
    local head = call('ZRANGE', lane, 0, 0, 'WITHSCORES')
    score = head[2] and tonumber(head[2]) - 1 or seq()
  else
    score = seq()
  end
  add(lane, score, id)
  local band = prio .. '/' .. btype
  local of_queue = fresh_bands[queue]
  if not of_queue then
    of_queue = {}
    fresh_bands[queue] = of_queue
  end
  of_queue[band] = (of_queue[band] or 0) + 1
  count(queue .. '/w', 1)
end

local function into_delayed(id, queue, due)
  add(P .. 'delayed', due, id)
  count(queue .. '/d', 1)
  if not wakes.due or due < wakes.due then wakes.due = due end
end

local function into_finished(id, queue, state)
  add(P .. 'fin:' .. queue .. '/' .. state, now, id)
  count(queue .. '/' .. state, 1)
end

-- Out of where a job that is not active stands.
local function out_of_rest(id, state, queue, prio, btype)
  if state == 'w' then
    rem(lane_key(queue, prio, btype), id)
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

-- Bands that have work now are listed, so that a fetch of this very call sees them.
local function open_bands()
  for queue, bands in pairs(fresh_bands) do
    local names = {}
    for band in pairs(bands) do names[#names + 1] = band end
    call('SADD', P .. 'bands:' .. queue, unpack(names))
  end
end

-- After the indexes are written: wake whoever can do what became ready, but for bands that the caller has looked at itself.
local function announce(looked)
  for queue, bands in pairs(fresh_bands) do
    for band, n in pairs(bands) do
      if not (looked and looked[queue .. '/' .. band]) then wake(queue, string.sub(band, 3), math.min(n, 4)) end
    end
  end
  if wakes.due then tell_keeper(wakes.due) end
  fresh_bands, wakes = {}, {}
end
