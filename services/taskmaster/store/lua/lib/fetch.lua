-- Who is next: free slots of queues become claims (PROTOCOL.md, "Fetch").
--- @include "lib/expire"
--- @include "lib/fair"
--- @include "lib/turns"

local CLAIMED_A_CALL = 256
local claimer = {} -- who claims, to be filled in: cap, token, expiry (text), window (ms that a key outlives its job)
local claims, ids, looked, leftovers = {}, {}, {}, {} -- what was claimed; bands that were looked into; {queue, band type} left behind
local fallbacks = {} -- those of the claims that run the fallback of their type
-- One question where nobody uses what a round would have to look at each time.
local some_flow = call('EXISTS', P .. 'exp', P .. 'kick', P .. 'pause', P .. 'tl') > 0
local some_paused, some_limited = some_flow and call('EXISTS', P .. 'pause') == 1, some_flow and call('EXISTS', P .. 'tl') == 1

-- f: the job's `st ep hb fl`; due: when it could begin, if that was not when it was made.
local function claim(id, queue, epoch, f, due)
  local n = #claims + 1
  claims[n] = { id, queue, epoch, epoch - (tonumber(f[3]) or 0), tonumber(f[4]) or 0, tonumber(due) or 0 }
  ids[n] = id
end

-- The job is this call's, unless it is gone or came too late: then its place is free for another. needs: limiters that it takes, if any.
local function lease(id, queue, needs)
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'st', 'ep', 'ex', 'ra')
  if f[1] ~= 'w' then -- a foreign hand
    more = 1
    return
  end
  if f[3] then
    if tonumber(f[3]) <= now then
      count(queue .. '/w', -1)
      expire(id, claimer.window)
      more = 1
      return
    end
    rem(P .. 'exp', id) -- it begins in time
  end
  local due = f[4]
  f = f[2] and call('HMGET', key, 'st', 'ep', 'hb', 'fl') or {} -- the first attempt has none of these yet
  local epoch = (tonumber(f[2]) or 0) + 1
  for i = 1, needs and #needs or 0 do
    take(needs[i], id, epoch)
    if needs[i].is_fallback then fallbacks[#fallbacks + 1] = id end
  end
  local epoch_text = epoch == 1 and '1' or epoch
  if needs and needs.held then
    call('HSET', key, 'st', 'a', 'ep', epoch_text, 'tk', claimer.token, 'sa', NOW, 'hl', needs.held)
  else
    call('HSET', key, 'st', 'a', 'ep', epoch_text, 'tk', claimer.token, 'sa', NOW)
  end
  add(P .. 'active', claimer.expiry, id)
  tell('a', id)
  claim(id, queue, epoch, f, due)
end

-- Per band: its type without the mark of jobs that lost a worker, its orders and limits.
local function rules_of(queue, types)
  local fields = {}
  for i, ty in ipairs(types) do fields[i] = string.gsub(ty, '!$', '') end
  local limits = some_limited and call('HMGET', P .. 'tl', unpack(fields)) or {}
  for i, ty in ipairs(fields) do fields[i] = 't/' .. ty end
  return limits, some_paused and call('HMGET', P .. 'pause', unpack(fields)) or {}
end

-- The bands of this queue that the caller may take from: levels[p] = {size: jobs at least, bands}; how many jobs that is, whether they can be
-- taken in bulk: no keys, no limiters.
local function ready_levels(queue)
  local bands = call('SMEMBERS', P .. 'bands:' .. queue)
  if #bands == 0 then return {}, 0, true end
  local types, owns = {}, {}
  for i, band in ipairs(bands) do
    local plain = band
    if string.byte(band, -1) == 42 then plain, owns[i] = parts_of(band) end -- `*`: a ring
    types[i] = string.sub(plain, 3)
  end
  local loaded = call('SMISMEMBER', P .. 'cap:' .. claimer.cap, unpack(types))
  local limits, paused = rules_of(queue, types)
  local levels, ready, others, in_bulk = {}, 0, 0, true
  for i, band in ipairs(bands) do
    if loaded[i] == 0 or paused[i] then
      others = others + 1
    else
      local p, plain = tonumber(string.sub(band, 1, 1)), string.sub(band, 1, 2) .. types[i]
      local its = { band = band, plain = plain, btype = types[i], limits = limits[i] or '', own = owns[i] or '' }
      if owns[i] then its.ring = P .. 'ring:' .. queue .. '/' .. plain .. owns[i] else its.lane = P .. 'lane:' .. queue .. '/' .. band .. '/-' end
      looked[queue .. '/' .. band] = true
      its.size = call('ZCARD', its.ring or its.lane)
      if its.size == 0 then
        call('SREM', P .. 'bands:' .. queue, band)
      else
        levels[p] = levels[p] or { size = 0 }
        table.insert(levels[p], its)
        levels[p].size, ready = levels[p].size + its.size, ready + its.size
        if its.ring or its.limits ~= '' then in_bulk = false end
      end
    end
  end
  if ready == 0 and others == 0 then -- an empty queue owes nobody anything
    local flow = P .. 'flow:' .. queue .. '/'
    call('DEL', P .. 'vt:' .. queue, flow .. '0', flow .. '1', flow .. '2', flow .. '3')
  end
  return levels, ready, in_bulk
end

-- The n oldest jobs of one level: straight off its lane, or merged by age when several types wait.
local function take_from(queue, level, n)
  local taken = {}
  if #level == 1 then
    taken = take_oldest(level[1].lane, n)
    level[1].size = level[1].size - #taken
  else
    local heads = {}
    for _, band in ipairs(level) do
      local row = call('ZRANGE', band.lane, 0, n - 1, 'WITHSCORES')
      for i = 1, #row, 2 do heads[#heads + 1] = { row[i], tonumber(row[i + 1]), band } end
    end
    table.sort(heads, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end) -- as within a lane
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

-- n jobs, as many of each level as it has turns.
local function fetch_in_bulk(queue, levels, n, is_strict)
  local tags, left, order, share, took = open_turns(queue, is_strict), {}, {}, {}, {}
  local alone = next(levels)
  if not next(levels, alone) then -- nearly always: there is nobody to take turns with
    had_turns(tags, alone, n)
    close_turns(tags)
    for _, id in ipairs(take_from(queue, levels[alone], n)) do lease(id, queue) end
    return
  end
  for p, level in pairs(levels) do left[p] = level.size end
  for i = 1, n do
    local p = whose_turn(tags, left)
    had_turns(tags, p, 1)
    order[i], left[p], share[p] = p, left[p] - 1, (share[p] or 0) + 1
  end
  close_turns(tags)
  for p, m in pairs(share) do took[p] = { at = 0, take_from(queue, levels[p], m) } end
  for _, p in ipairs(order) do
    local t = took[p]
    t.at = t.at + 1
    if t[1][t.at] then lease(t[1][t.at], queue) end
  end
end

-- Up to n jobs, each by a turn of its level and, inside it, of its key; only where all limiters have room.
local function fetch_in_turns(queue, levels, n, limits, weights, is_strict)
  local tags, left, turns, taken, alone = open_turns(queue, is_strict), {}, {}, 0, next(levels)
  if next(levels, alone) then alone = nil end
  for p, level in pairs(levels) do left[p], turns[p] = 1, open_level(queue, p, level, n, limits, weights) end
  while taken < n do
    local p = alone or whose_turn(tags, left)
    if not p then break end
    local id, needs, is_shut = take_turn(turns[p])
    if is_shut then break end
    if id then
      taken = taken + 1 -- a job that came too late was taken, too: what one call does has a bound
      if not alone then had_turns(tags, p, 1) end
      lease(id, queue, needs)
    elseif alone then
      break
    else
      left[p] = 0
    end
  end
  if alone and taken > 0 then had_turns(tags, alone, taken) end
  close_turns(tags)
  for _, turn in pairs(turns) do close_level(turn) end
  for _, level in pairs(levels) do
    for _, band in ipairs(level) do
      band.size = call('ZCARD', band.ring or band.lane)
      if band.size == 0 then call('SREM', P .. 'bands:' .. queue, band.band) end
      -- What is left here is ready: not out of turn, and not refused.
      if band.size > 0 and taken == n then
        if band.ring then band.size = call('ZCOUNT', band.ring, '-inf', '(+inf') end
        if band.size > 0 and (band.is_shut or is_refused(band)) then band.size = 0 end
      end
    end
  end
end

-- Claims up to `slots` jobs of one queue; answers how many.
local function fetch(queue, slots)
  if some_paused and call('HEXISTS', P .. 'pause', 'q/' .. queue) == 1 then return 0 end
  local levels, ready, in_bulk = ready_levels(queue)
  local before = #claims
  local n = math.min(slots, CLAIMED_A_CALL - before)
  if ready == 0 then return 0 end
  local rules = call('HMGET', P .. 'q:' .. queue, 'lm', 'strict', 'weights')
  if in_bulk and not rules[1] then
    fetch_in_bulk(queue, levels, math.min(n, ready), rules[2])
  else
    fetch_in_turns(queue, levels, n, (some_paused and TENANTS .. ',' or '') .. (rules[1] or ''), rules[3] and cjson.decode(rules[3]) or {}, rules[2])
  end
  local got = #claims - before
  count(queue .. '/w', -got)
  count(queue .. '/a', got)
  if got == n then
    for _, level in pairs(levels) do
      for _, band in ipairs(level) do
        if band.size > 0 then leftovers[#leftovers + 1] = { queue, band.btype } end
      end
    end
    if n < slots and #leftovers > 0 then more = 1 end -- cut off by the bound on claims, not by want of room
  end
  return got
end
