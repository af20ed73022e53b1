-- Whose turn it is within one level (queue and priority) where lanes have fairness keys or limiters: smallest start tag first, keys take turns
-- by weight (PROTOCOL.md, "Fetch"). Levels without either are taken in bulk and do not come here.
--- @include "lib/park"

local KEY_STRIDE, LANES_A_TURN = 5040, 64

-- The fairness key of a lane is what stands before its own limiters, `-` for none.
local function key_of(name)
  local key = string.match(name, '^[^~]*')
  return key ~= '' and key or '-'
end

-- A level's turn-taking. limits: of the queue; weights: of keys, 1 where none is given.
local function open_level(queue, p, limits, weights)
  local v = call('HGET', P .. 'vt:' .. queue, 'v' .. p)
  return { queue = queue, p = p, v = tonumber(v or 0), flow = P .. 'flow:' .. queue .. '/' .. p, tags = {}, served = {}, limits = limits, weights = weights }
end

local function finish_tag(turn, key)
  local tag = turn.tags[key]
  if not tag then
    tag = tonumber(call('ZSCORE', turn.flow, key) or 0)
    turn.tags[key] = tag
  end
  return tag
end

-- The lane of this band that is next, with its start tag, and to settle ties the arrival of its first job; nil: none is ready.
local function head_of(turn, band)
  if band.head then return band.head end
  if not band.ring then
    local first = call('ZRANGE', band.lane, 0, 0, 'WITHSCORES')
    if first[1] then band.head = { name = '', lane = band.lane, tag = math.max(finish_tag(turn, '-'), turn.v), at = tonumber(first[2]) } end
    return band.head
  end
  for _ = 1, LANES_A_TURN do -- a lane whose key was served elsewhere meanwhile goes to its true place first
    local first = call('ZRANGE', band.ring, 0, 0, 'WITHSCORES')
    if not first[1] or first[2] == 'inf' then return nil end
    local name, tag = first[1], tonumber(first[2])
    local lane, true_tag = P .. 'lane:' .. turn.queue .. '/' .. band.plain .. '/' .. name, finish_tag(turn, key_of(name))
    if true_tag <= tag then
      local oldest = call('ZRANGE', lane, 0, 0, 'WITHSCORES')[2]
      if oldest then
        band.head = { name = name, lane = lane, tag = math.max(tag, turn.v), at = tonumber(oldest) }
        return band.head
      end
      call('ZREM', band.ring, name) -- its last job was cancelled
    else
      call('ZADD', band.ring, true_tag, name)
    end
  end
  more = 1
  return nil
end

-- All limiters that a job of this lane needs; or nil, the first that has no room, and the unit that is to wait for it. refusals: a list to
-- be given all that have no room, for whoever wants to know why.
local function needs_of(turn, band, head, refusals)
  local key, needs = key_of(head.name), {}
  local lane_unit = head.name ~= '' and turn.queue .. '/' .. band.plain .. '/' .. head.name or turn.queue .. '/' .. band.band
  local sources = { turn.limits, turn.queue, band.limits, turn.queue .. '/' .. band.band, string.match(head.name, '~(.*)$') or '', lane_unit }
  for i = 1, 5, 2 do
    for name in string.gmatch(sources[i], '[^,~]+') do
      local falls_back = string.byte(name, -1) == 63 -- `!dependency?`: rather than wait for the breaker, the fallback runs
      local l = limiter(falls_back and string.sub(name, 1, -2) or name, key)
      if l then
        if l.room <= 0 and falls_back then
          needs[#needs + 1] = { instance = name, room = math.huge, took = 0, is_held = true, is_fallback = true }
        elseif l.room <= 0 then
          local unit = l.instance ~= name and lane_unit or sources[i + 1]
          if not refusals then return nil, l, unit end
          refusals[#refusals + 1] = { l, unit }
        else
          needs[#needs + 1] = l
        end
      end
    end
  end
  return needs
end

-- One job of the level and the limiters it takes; nil: none may be claimed now. A refused unit waits for its limiter, and the next is asked.
local function take_turn(turn, level)
  for _ = 1, LANES_A_TURN do
    local band, head
    for _, b in ipairs(level) do
      local its = not b.is_shut and head_of(turn, b)
      if its and (not head or its.tag < head.tag or (its.tag == head.tag and its.at < head.at)) then band, head = b, its end
    end
    if not head then return nil end
    band.head = nil
    local needs, l, unit = needs_of(turn, band, head)
    if needs then
      local id, key = call('ZPOPMIN', head.lane)[1], key_of(head.name)
      turn.v, turn.tags[key], turn.served[key] = head.tag, head.tag + KEY_STRIDE / (turn.weights[key] or 1), true
      if band.ring then
        if call('EXISTS', head.lane) == 1 then
          call('ZADD', band.ring, turn.tags[key], head.name)
        else
          call('ZREM', band.ring, head.name)
        end
      end
      return id, needs
    elseif band.ring and unit ~= turn.queue and unit ~= turn.queue .. '/' .. band.band then
      park(unit, head.tag, l, band.ring, head.name)
    else
      park(unit, head.tag, l)
      band.is_shut = true
      if unit == turn.queue then return nil, nil, true end
    end
  end
  more = 1
  return nil
end

-- Tags that the virtual time has passed say nothing any more.
local function close_level(turn)
  local rows, served = {}, 0
  for key in pairs(turn.served) do
    rows[#rows + 1], rows[#rows + 2], served = turn.tags[key], key, served + 1
  end
  if served == 0 then return end
  call('HSET', P .. 'vt:' .. turn.queue, 'v' .. turn.p, turn.v)
  for first = 1, #rows, 1000 do call('ZADD', turn.flow, unpack(rows, first, math.min(first + 999, #rows))) end
  local past = call('ZRANGEBYSCORE', turn.flow, '-inf', turn.v, 'LIMIT', 0, 2 * served)
  if #past > 0 then call('ZREM', turn.flow, unpack(past)) end
end
