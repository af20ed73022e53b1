-- Whose turn it is within one level (queue and priority) where lanes have fairness keys or limiters: smallest start tag first, keys take turns
-- by weight (PROTOCOL.md, "Fetch"). Levels without either are taken in bulk and do not come here.
--- @include "lib/park"

local KEY_STRIDE, AHEAD = 5040, 64
local NONE = {} -- no limiters are needed

-- What the jobs of a band need, with the unit that is to wait for each. `!dependency?`: rather than wait for that breaker, the fallback runs.
local function limiters_of(queue, limits, band)
  local found, unit = {}, queue .. '/' .. band.band
  for i, names in ipairs({ limits, band.limits, band.own }) do
    for name in string.gmatch(names, '[^,~]+') do
      local fallback = string.byte(name, -1) == 63 and name or nil
      table.insert(found, { name = fallback and string.sub(name, 1, -2) or name, unit = i == 1 and queue or unit, fallback = fallback })
    end
  end
  return found
end

-- A level's turn-taking for about n claims. limits: of the queue; weights: of keys, 1 where none is given.
local function open_level(queue, p, bands, n, limits, weights)
  local v = call('HGET', P .. 'vt:' .. queue, 'v' .. p)
  for _, band in ipairs(bands) do
    band.lanes, band.changed, band.gone, band.limiters = P .. 'lane:' .. queue .. '/' .. band.plain .. '/', {}, {}, limiters_of(queue, limits, band)
    if not band.ring then band.rows, band.is_whole = { { name = '-', key = '-', tag = 0 } }, true end
  end
  return { queue = queue, p = p, bands = bands, v = tonumber(v or 0), flow = P .. 'flow:' .. queue .. '/' .. p, tags = {}, served = {}, weights = weights,
    ahead = math.min(n + 1, AHEAD), tries = 4 * n + AHEAD }
end

-- What the call changed in a ring.
local function write_ring(band)
  local rows = {}
  for name, tag in pairs(band.changed) do
    rows[#rows + 1], rows[#rows + 2] = tag, name
  end
  if #rows > 0 then call('ZADD', band.ring, unpack(rows)) end
  if #band.gone > 0 then call('ZREM', band.ring, unpack(band.gone)) end
  band.changed, band.gone = {}, {}
end

-- Where the turns of these keys begin.
local function read_tags(turn, rows)
  local keys, known = {}, {}
  for _, row in ipairs(rows) do
    if not turn.tags[row.key] and not known[row.key] then
      keys[#keys + 1], known[row.key] = row.key, true
    end
  end
  if #keys == 0 then return end
  for i, tag in ipairs(call('ZMSCORE', turn.flow, unpack(keys))) do turn.tags[keys[i]] = tonumber(tag or 0) end
end

-- The lanes of a ring that come first. Turns are taken in memory: one read and one write a fetch, not one a claim.
local function read_ring(turn, band)
  write_ring(band)
  local read, rows = call('ZRANGE', band.ring, 0, turn.ahead - 1, 'WITHSCORES'), {}
  for i = 1, #read, 2 do
    rows[#rows + 1] = { name = read[i], key = key_of(read[i]), tag = read[i + 1] == 'inf' and math.huge or tonumber(read[i + 1]) }
  end
  band.rows, band.is_whole, band.horizon = rows, #rows < turn.ahead, #rows > 0 and rows[#rows].tag
  read_tags(turn, rows)
end

-- The first row to where its tag says, behind its equals; out of sight if others that were not read may come before it.
local function move_first(band, tag)
  local row = table.remove(band.rows, 1)
  row.tag, row.at = tag, nil
  if band.ring then band.changed[row.name] = tag end
  if not band.is_whole and tag >= band.horizon then return end
  local at = #band.rows
  while at > 0 and band.rows[at].tag > tag do at = at - 1 end
  table.insert(band.rows, at + 1, row)
end

local function drop_first(band)
  local row = table.remove(band.rows, 1)
  if band.ring then
    band.changed[row.name] = nil
    table.insert(band.gone, row.name)
  end
end

-- The lane of this band that is next; nil: none is ready. A lane whose key was served elsewhere meanwhile goes to its true place first.
local function head_of(turn, band)
  while turn.tries > 0 do
    local row = band.rows and band.rows[1]
    if row then
      if row.tag == math.huge then return nil end
      if not turn.tags[row.key] then read_tags(turn, { row }) end
      if turn.tags[row.key] <= row.tag then return row end
      move_first(band, turn.tags[row.key])
      turn.tries = turn.tries - 1
    elseif band.is_whole then
      return nil
    else
      read_ring(turn, band)
      turn.tries = turn.tries - 1
    end
  end
  return nil
end

-- Between equal tags the older job is first.
local function age(band, row)
  if not row.at then row.at = tonumber(call('ZRANGE', band.lanes .. row.name, 0, 0, 'WITHSCORES')[2] or '-inf') end
  return row.at
end

-- All limiters that a job of this lane needs; or nil, and the first that has no room with the unit that is to wait for it. One that is by key
-- keeps its lane only. refusals: a list to be given all that have no room, for whoever wants to know why.
local function needs_of(band, key, refusals)
  if #band.limiters == 0 then return NONE end
  local needs = {}
  for _, its in ipairs(band.limiters) do
    local l = limiter(its.name, key)
    if l and not needs[l] then
      if l.room <= 0 and its.fallback then
        needs[#needs + 1] = { instance = its.fallback, room = math.huge, took = 0, is_held = true, is_fallback = true }
      elseif l.room <= 0 then
        if not refusals then return nil, l, its.unit end
        refusals[#refusals + 1] = { l, its.unit }
      else
        needs[#needs + 1], needs[l] = l, true
      end
    end
  end
  return needs
end

-- The band itself or its whole queue waits, as far as limiters tell that are not by key.
local function is_refused(band)
  for _, its in ipairs(band.limiters) do
    local l = limiter(its.name, '-')
    if l and l.room <= 0 and not l.is_by_key and not its.fallback then
      park(its.unit, l)
      return true
    end
  end
  return false
end

-- One job of the level and the limiters it takes; nil: none may be claimed now. A refused unit waits for its limiter, and the next is asked.
local function take_turn(turn)
  while turn.tries > 0 do
    turn.tries = turn.tries - 1
    local band, row, tag
    for _, b in ipairs(turn.bands) do
      local its = not b.is_shut and head_of(turn, b)
      if its then
        local its_tag = math.max(its.tag, turn.v)
        if not row or its_tag < tag or (its_tag == tag and age(b, its) < age(band, row)) then band, row, tag = b, its, its_tag end
      end
    end
    if not row then break end
    local needs, l, unit = needs_of(band, row.key)
    if needs then
      local id, key = call('ZPOPMIN', band.lanes .. row.name)[1], row.key
      if id then
        local weight = turn.weights[key] or 1
        turn.v, turn.tags[key], turn.served[key] = tag, tag + KEY_STRIDE / weight, true
      end
      if id and call('EXISTS', band.lanes .. row.name) == 1 then move_first(band, turn.tags[key]) else drop_first(band) end
      if id then return id, needs end -- else its last job was cancelled
    elseif l.is_by_key and band.ring then
      band.changed[row.name] = '+inf'
      table.remove(band.rows, 1)
      park(turn.queue .. '/' .. band.plain .. '/' .. row.name, l, true)
    else
      park(l.is_by_key and turn.queue .. '/' .. band.band or unit, l)
      band.is_shut = true
      if unit == turn.queue and not l.is_by_key then return nil, nil, true end
    end
  end
  if turn.tries == 0 then more = 1 end
  return nil
end

-- Tags that the virtual time has passed say nothing any more.
local function close_level(turn)
  for _, band in ipairs(turn.bands) do write_ring(band) end
  local rows, served = {}, 0
  for key in pairs(turn.served) do
    rows[#rows + 1], rows[#rows + 2], served = turn.tags[key], key, served + 1
  end
  if served == 0 then return end
  call('HSET', P .. 'vt:' .. turn.queue, 'v' .. turn.p, turn.v)
  call('ZADD', turn.flow, unpack(rows))
  local past = call('ZRANGEBYSCORE', turn.flow, '-inf', turn.v, 'LIMIT', 0, 2 * served)
  if #past > 0 then call('ZREM', turn.flow, unpack(past)) end
end
