-- Whose turn it is within one level (queue and priority) where lanes have fairness keys or limiters: smallest start tag first, keys take turns
-- by weight (PROTOCOL.md, "Fetch"). Levels without either are taken in bulk and do not come here.
--- @include "lib/park"

local KEY_STRIDE, AHEAD = 5040, 128
local PAST_KEPT = 256 -- tags that say nothing any more, of a level: most of their keys are served again soon
local NONE, NEVER = {}, math.huge -- no limiters are needed; the tag of a lane that is out of turn
-- A row of a ring is a list, since there is one for each claim: a lane's name, its fairness key, its tag; its key in the store, if this call
-- took jobs from it; whether it has none left; whether it is among those to be written; score of its oldest job, once that was asked for.
local LANE_NAME, LANE_KEY, LANE_TAG, SERVED_FROM, IS_GONE, IS_NOTED, LANE_AGE = 1, 2, 3, 4, 5, 6, 7

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
    band.lanes, band.limiters = P .. 'lane:' .. queue .. '/' .. band.plain .. '/', limiters_of(queue, limits, band)
    if not band.ring then band.rows, band.first, band.last, band.is_whole = { { '-', '-', 0, false, false, false, false } }, 1, 1, true end
  end
  return { queue = queue, p = p, bands = bands, v = tonumber(v or 0), flow = P .. 'flow:' .. queue .. '/' .. p, tags = {}, served = {}, keys = 0, weights = weights,
    ahead = math.min(n + 1, AHEAD), tries = 4 * n + AHEAD }
end

-- Whether a lane from which this call took jobs has none left.
local function is_emptied(row)
  return row[SERVED_FROM] and call('EXISTS', row[SERVED_FROM]) == 0
end

-- The rows of a ring that this call moved: those before `first`, some of which went back into sight and are there twice. Counts are kept beside
-- lists: `#` searches, and all of this runs once a claim.
local function moved_rows(band)
  local moved, n = {}, 0
  for i = 1, band.first - 1 do
    local row = band.rows[i]
    if not row[IS_NOTED] then
      n = n + 1
      row[IS_NOTED], moved[n] = true, row
    end
  end
  return moved, n
end

-- Lanes are emptied by what this call takes from them: asked of all of them at once, and of each only if that is so.
local function find_emptied(moved, m)
  local keys, n = {}, 0
  for i = 1, m do
    local row = moved[i]
    if row[SERVED_FROM] and not row[IS_GONE] then
      n = n + 1
      keys[n] = row[SERVED_FROM]
    end
  end
  if n == 0 or call('EXISTS', unpack(keys)) == n then return end
  for i = 1, m do
    local row = moved[i]
    row[IS_GONE] = row[IS_GONE] or is_emptied(row)
  end
end

local function write_ring(band)
  if not (band.ring and band.rows) then return end
  local moved, m = moved_rows(band)
  find_emptied(moved, m)
  local rows, n, gone, g = {}, 0, {}, 0
  for i = 1, m do
    local row = moved[i]
    if row[IS_GONE] then
      g = g + 1
      gone[g] = row[LANE_NAME]
    else
      rows[n + 1], rows[n + 2], n = row[LANE_TAG], row[LANE_NAME], n + 2
    end
  end
  if n > 0 then call('ZADD', band.ring, unpack(rows)) end
  if g > 0 then call('ZREM', band.ring, unpack(gone)) end
end

-- Where the turns of the keys of n rows begin.
local function read_tags(turn, rows, n)
  local tags, keys, m = turn.tags, {}, 0
  for i = 1, n do
    local key = rows[i][LANE_KEY]
    if not tags[key] then
      m = m + 1
      keys[m] = key
    end
  end
  if m == 0 then return end
  local known, text, tag = call('ZMSCORE', turn.flow, unpack(keys)), nil, 0
  for i = 1, m do
    if known[i] ~= text then text, tag = known[i], tonumber(known[i] or 0) end -- many are alike
    tags[keys[i]] = tag
  end
end

-- The lanes of a ring that come first. Turns are taken in memory: one read and one write a fetch, not one a claim.
local function read_ring(turn, band)
  write_ring(band)
  local read, rows, n, key_end = call('ZRANGE', band.ring, 0, turn.ahead - 1, 'WITHSCORES'), {}, 0, -1 - #band.own -- all its names end alike
  local text, tag
  for i = 1, #read, 2 do
    local name, key = read[i], key_end == -1 and read[i] or string.sub(read[i], 1, key_end)
    if read[i + 1] ~= text then text, tag = read[i + 1], read[i + 1] == 'inf' and NEVER or tonumber(read[i + 1]) end
    n = n + 1
    rows[n] = { name, key ~= '' and key or '-', tag, false, false, false, false }
  end
  band.rows, band.first, band.last, band.is_whole, band.horizon = rows, 1, n, n < turn.ahead, n > 0 and tag
  read_tags(turn, rows, n)
end

-- The first row leaves those that are in sight: rows[first] to rows[last]. It stays in the list, to be written with the ring.
local function pull_first(band)
  local first = band.first
  band.first = first + 1
  return band.rows[first]
end

-- The first row to where its tag says, behind its equals; out of sight if others that were not read may come before it.
local function move_first(band, tag)
  local rows, row = band.rows, pull_first(band)
  row[LANE_TAG], row[LANE_AGE] = tag, false
  if not band.is_whole and tag >= band.horizon then return end
  local at = band.last
  while at >= band.first and rows[at][LANE_TAG] > tag do
    rows[at + 1] = rows[at]
    at = at - 1
  end
  rows[at + 1], band.last = row, band.last + 1
end

local function drop_first(band)
  pull_first(band)[IS_GONE] = true
end

-- The lane of this band that is next; nil: none is ready. A lane whose key was served elsewhere meanwhile goes to its true place first.
local function head_of(turn, band)
  while turn.tries > 0 do
    local row = band.rows and band.rows[band.first]
    if row then
      if row[LANE_TAG] == NEVER then return nil end
      local tag = turn.tags[row[LANE_KEY]]
      if not tag then
        read_tags(turn, { row }, 1)
        tag = turn.tags[row[LANE_KEY]]
      end
      if tag <= row[LANE_TAG] then return row end
      move_first(band, tag)
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
  if not row[LANE_AGE] then row[LANE_AGE] = tonumber(call('ZRANGE', band.lanes .. row[LANE_NAME], 0, 0, 'WITHSCORES')[2] or '-inf') end
  return row[LANE_AGE]
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
        local its_tag = its[LANE_TAG]
        if its_tag < turn.v then its_tag = turn.v end
        if not row or its_tag < tag or (its_tag == tag and age(b, its) < age(band, row)) then band, row, tag = b, its, its_tag end
      end
    end
    if not row then break end
    local key = row[LANE_KEY]
    local needs, l, unit = needs_of(band, key)
    if needs then
      local lane = row[SERVED_FROM] or band.lanes .. row[LANE_NAME]
      local id = call('ZPOPMIN', lane)[1]
      if id then
        local after = tag + KEY_STRIDE / (turn.weights[key] or 1)
        turn.v, turn.tags[key] = tag, after
        if not row[SERVED_FROM] then
          local n = turn.keys + 1
          row[SERVED_FROM], turn.keys, turn.served[n] = lane, n, key
        end
        move_first(band, after)
        return id, needs
      end
      drop_first(band) -- this call took its last job
    elseif is_emptied(row) then
      drop_first(band) -- nothing is there that could wait
    elseif l.is_by_key and band.ring then
      pull_first(band)[LANE_TAG] = '+inf'
      park(turn.queue .. '/' .. band.plain .. '/' .. row[LANE_NAME], l, true)
    else
      park(l.is_by_key and turn.queue .. '/' .. band.band or unit, l)
      band.is_shut = true
      if unit == turn.queue and not l.is_by_key then return nil, nil, true end
    end
  end
  if turn.tries == 0 then more = 1 end
  return nil
end

-- Tags that the virtual time has passed say nothing any more. They go once they are many.
local function close_level(turn)
  for _, band in ipairs(turn.bands) do write_ring(band) end
  local rows, served = {}, turn.keys
  if served == 0 then return end
  for i = 1, served do rows[2 * i - 1], rows[2 * i] = turn.tags[turn.served[i]], turn.served[i] end
  call('HSET', P .. 'vt:' .. turn.queue, 'v' .. turn.p, turn.v)
  call('ZADD', turn.flow, unpack(rows))
  local past = call('ZCOUNT', turn.flow, '-inf', turn.v)
  if past > PAST_KEPT then call('ZREMRANGEBYRANK', turn.flow, 0, math.min(past - PAST_KEPT, 2 * served) - 1) end
end
