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
    band.lanes, band.moved, band.moves, band.limiters = P .. 'lane:' .. queue .. '/' .. band.plain .. '/', {}, 0, limiters_of(queue, limits, band)
    if not band.ring then band.rows, band.first, band.last, band.is_whole = { { name = '-', key = '-', tag = 0 } }, 1, 1, true end
  end
  return { queue = queue, p = p, bands = bands, v = tonumber(v or 0), flow = P .. 'flow:' .. queue .. '/' .. p, tags = {}, served = {}, keys = 0, weights = weights,
    ahead = math.min(n + 1, AHEAD), tries = 4 * n + AHEAD }
end

-- Whether a lane from which this call took jobs has none left.
local function is_emptied(band, row)
  return row.is_served and call('EXISTS', band.lanes .. row.name) == 0
end

-- Lanes are emptied by what this call takes from them: asked of all of them at once, and of each only if that is so.
local function find_emptied(band)
  local keys, n = {}, 0
  for i = 1, band.moves do
    local row = band.moved[i]
    if row.is_served and not row.is_gone then
      n = n + 1
      keys[n] = band.lanes .. row.name
    end
  end
  if n == 0 or call('EXISTS', unpack(keys)) == n then return end
  for i = 1, band.moves do
    local row = band.moved[i]
    row.is_gone = row.is_gone or is_emptied(band, row)
  end
end

-- What the call changed in a ring. Counts are kept beside lists: `#` searches, and all of this runs once a claim.
local function write_ring(band)
  find_emptied(band)
  local rows, n, gone, m = {}, 0, {}, 0
  for i = 1, band.moves do
    local row = band.moved[i]
    if row.is_gone then
      m = m + 1
      gone[m] = row.name
    else
      rows[n + 1], rows[n + 2], n = row.tag, row.name, n + 2
    end
  end
  if n > 0 then call('ZADD', band.ring, unpack(rows)) end
  if m > 0 then call('ZREM', band.ring, unpack(gone)) end
  band.moved, band.moves = {}, 0
end

-- Where the turns of the keys of n rows begin.
local function read_tags(turn, rows, n)
  local tags, keys, m = turn.tags, {}, 0
  for i = 1, n do
    local key = rows[i].key
    if not tags[key] then
      m = m + 1
      keys[m] = key
    end
  end
  if m == 0 then return end
  local known = call('ZMSCORE', turn.flow, unpack(keys))
  for i = 1, m do tags[keys[i]] = tonumber(known[i] or 0) end
end

-- The lanes of a ring that come first. Turns are taken in memory: one read and one write a fetch, not one a claim.
local function read_ring(turn, band)
  write_ring(band)
  local read, rows, n, key_end = call('ZRANGE', band.ring, 0, turn.ahead - 1, 'WITHSCORES'), {}, 0, -1 - #band.own -- all its names end alike
  for i = 1, #read, 2 do
    local name, tag, key = read[i], read[i + 1], string.sub(read[i], 1, key_end)
    n = n + 1
    rows[n] = { name = name, key = key ~= '' and key or '-', tag = tag == 'inf' and math.huge or tonumber(tag) }
  end
  band.rows, band.first, band.last, band.is_whole, band.horizon = rows, 1, n, n < turn.ahead, n > 0 and rows[n].tag
  read_tags(turn, rows, n)
end

-- The first row leaves those that are in sight: rows[first] to rows[last]. What becomes of it is written with the ring.
local function pull_first(band)
  local row = band.rows[band.first]
  band.rows[band.first], band.first = nil, band.first + 1
  if band.ring and not row.is_moved then
    row.is_moved, band.moves = true, band.moves + 1
    band.moved[band.moves] = row
  end
  return row
end

-- The first row to where its tag says, behind its equals; out of sight if others that were not read may come before it.
local function move_first(band, tag)
  local rows, row = band.rows, pull_first(band)
  row.tag, row.at = tag, nil
  if not band.is_whole and tag >= band.horizon then return end
  local at = band.last
  while at >= band.first and rows[at].tag > tag do
    rows[at + 1] = rows[at]
    at = at - 1
  end
  rows[at + 1], band.last = row, band.last + 1
end

local function drop_first(band)
  pull_first(band).is_gone = true
end

-- The lane of this band that is next; nil: none is ready. A lane whose key was served elsewhere meanwhile goes to its true place first.
local function head_of(turn, band)
  while turn.tries > 0 do
    local row = band.rows and band.rows[band.first]
    if row then
      if row.tag == math.huge then return nil end
      if not turn.tags[row.key] then read_tags(turn, { row }, 1) end
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

-- What of limiters a job with these needs holds, as its hash has it; nil: nothing.
local function held_of(needs)
  local instances = {}
  for _, l in ipairs(needs) do
    if l.is_held then instances[#instances + 1] = l.instance end
  end
  return #instances > 0 and table.concat(instances, ',') or nil
end

-- The limiters of a lane of this key, as long as all have room: found once a call, for each key where one of them is by key.
local function all_limiters(band, key)
  local all = band.of_all or band.of_key and band.of_key[key]
  if all then return all end
  local is_by_key = false
  all = {}
  for _, its in ipairs(band.limiters) do
    local l = limiter(its.name, key)
    if l and not all[l] then
      all[#all + 1], all[l] = l, true
      is_by_key = is_by_key or l.is_by_key
    end
  end
  all.held, band.of_key = held_of(all), band.of_key or {}
  if is_by_key then band.of_key[key] = all else band.of_all = all end
  return all
end

-- All limiters that a job of this lane needs, `held` of them as its hash has it; or nil, and the first that has no room with the unit that is
-- to wait for it. One that is by key keeps its lane only. refusals: a list to be given all that have no room, for whoever wants to know why.
local function needs_of(band, key, refusals)
  if #band.limiters == 0 then return NONE end
  local all, has_room = all_limiters(band, key), true
  for i = 1, #all do has_room = has_room and all[i].room > 0 end
  if has_room then return all end
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
  needs.held = held_of(needs)
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
    for i = 1, #turn.bands do
      local b = turn.bands[i]
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
        turn.v, turn.tags[key] = tag, tag + KEY_STRIDE / weight
        if not row.is_served then
          row.is_served, turn.keys = true, turn.keys + 1
          turn.served[turn.keys] = key
        end
      end
      if id then
        move_first(band, turn.tags[key])
        return id, needs
      end
      drop_first(band) -- this call took its last job
    elseif is_emptied(band, row) then
      drop_first(band) -- nothing is there that could wait
    elseif l.is_by_key and band.ring then
      pull_first(band).tag = '+inf'
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
  local rows, served = {}, turn.keys
  if served == 0 then return end
  for i = 1, served do rows[2 * i - 1], rows[2 * i] = turn.tags[turn.served[i]], turn.served[i] end
  call('HSET', P .. 'vt:' .. turn.queue, 'v' .. turn.p, turn.v)
  call('ZADD', turn.flow, unpack(rows))
  local past = call('ZCOUNT', turn.flow, '-inf', turn.v)
  if past > 0 then call('ZREMRANGEBYRANK', turn.flow, 0, math.min(past, 2 * served) - 1) end
end
