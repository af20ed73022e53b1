-- Units that wait until a limiter has room: a queue, a band of it, or, where the limiter is by key, one lane. What holds for the head of a
-- unit holds for all of it, so a million jobs behind one limit are one row (PROTOCOL.md, "Limiters").
--- @include "lib/limits"
--- @include "lib/state"

local LET_GO_A_KICK, LET_GO_A_CALL, KICKS_A_CALL, INSTANCES_A_CALL, AGAIN_MS = 32, 512, 256, 100, 10
local kicked, let_go = {}, {} -- limiters that were looked at in this call; units that wait no more

-- A lane out of turn stands in its ring at +inf, which is up to the caller; queues and bands are only marked, to spare needless wake-ups.
local function park(unit, l, is_lane)
  if not is_lane then call('SADD', P .. 'parked', unit) end
  call('ZADD', l.key .. ':w', 'NX', NOW, unit)
  if l.is_by_key then call('ZADD', P .. 'L:' .. l.name .. ':i', 0, l.instance) end
  local from = room_from(l)
  if from then kick_at(l.instance, from) end
end

-- Queue, priority and band type of a unit, and the name of its lane, nil if it is none.
local function unit_parts(unit)
  local queue, prio, band, name = string.match(unit, '^([^/]+)/?([^/]*)/?([^/]*)/?(.*)$')
  return queue, prio, band, name ~= '' and name or nil
end

local function unpark(unit, l)
  local queue, prio, band, name = unit_parts(unit)
  if not name then
    call('SREM', P .. 'parked', unit)
    let_go[#let_go + 1] = { queue = queue, btype = band ~= '' and string.match(band, '^[^~*]+') or nil, unit = unit, limiter = l }
    return
  end
  local lane = lane_of(queue, prio, band, name)
  if call('EXISTS', lane.key) == 0 then
    call('ZREM', lane.ring, name) -- its last job was cancelled
  else
    call('ZADD', lane.ring, 'XX', start_tag(lane), name)
    let_go[#let_go + 1] = { queue = queue, btype = band, unit = queue .. '/' .. lane.band }
  end
end

-- Whether a unit has to do with the limiter of this name still.
local function is_attached(name, unit)
  if name == TENANTS then return true end
  local queue, _, band, lane = unit_parts(unit)
  local names = ',' .. (call('HGET', P .. 'q:' .. queue, 'lm') or '')
  if band ~= '' then names = names .. ',' .. (call('HGET', P .. 'tl', string.match(band, '^[^~*!]+')) or '') end
  local own = string.match(lane or band, '~[^*]*') or ''
  names = string.gsub(names .. string.gsub(own, '~', ',') .. ',', '%?', '') -- `?`: its type has a fallback
  return string.find(names, ',' .. name .. ',', 1, true) ~= nil
end

-- What is to be let go for this instance of a limiter, first come, first served. Queues and bands: as many as could be served. Lanes, all of
-- one key: together, so that priorities decide between them. No room: those that were taken from the limiter meanwhile.
local function units_to_go(instance, name, l, most)
  local key = P .. 'L:' .. instance .. ':w'
  if l and l.room <= 0 then
    local gone = {}
    for _, unit in ipairs(call('ZRANGE', key, 0, LET_GO_A_KICK - 1)) do
      if not is_attached(name, unit) then gone[#gone + 1] = unit end
    end
    if #gone > 0 then call('ZREM', key, unpack(gone)) end
    return gone
  end
  local units, n = {}, math.min(most, LET_GO_A_KICK, l and not l.is_by_key and l.room or LET_GO_A_KICK)
  local popped = n > 0 and call('ZPOPMIN', key, n) or {}
  for i = 1, #popped, 2 do units[#units + 1] = popped[i] end
  return units
end

-- An instance whose limiter is gone, or is by key no longer, or only now, is nobody's: nil.
local function limiter_of(instance)
  local name, key = string.match(instance, '^([^@]+)@?(.*)$')
  local l = limiter(name, key)
  return l and l.instance == instance and l or nil, name
end

-- A limiter that was changed: its instances are looked at as well, some a call.
local function kick_instances(name)
  local from = call('HGET', P .. 'L:' .. name, 'kicked')
  local page = call('ZRANGEBYLEX', P .. 'L:' .. name .. ':i', from and '(' .. from or '-', '+', 'LIMIT', 0, INSTANCES_A_CALL)
  for _, instance in ipairs(page) do kick_at(instance, now) end
  if #page == INSTANCES_A_CALL then
    call('HSET', P .. 'L:' .. name, 'kicked', page[#page])
    kick_at(name, now)
  elseif from then
    call('HDEL', P .. 'L:' .. name, 'kicked')
  end
end

-- Limiters whose time has come let go of units. Whether that was right is seen after the fetch.
local function kick()
  local due = call('ZRANGEBYSCORE', P .. 'kick', '-inf', now, 'LIMIT', 0, KICKS_A_CALL)
  if #due == 0 then return end
  call('ZREM', P .. 'kick', unpack(due))
  local most = LET_GO_A_CALL
  for _, instance in ipairs(due) do
    local l, name = limiter_of(instance)
    if name == instance then kick_instances(name) end
    local units = units_to_go(instance, name, l, most)
    most = most - #units
    for _, unit in ipairs(units) do unpark(unit, l) end
    kicked[#kicked + 1] = instance
  end
end

-- After the fetch. A unit that was let go may have been refused by its next limiter, or nobody had a slot for it. So as long as units wait and
-- there is room, the limiter is looked at again; letting go of one for each slot that came free would strand the rest. A queue or band whose
-- room was used up without it being refused waits on; for others, somebody is woken, unless the caller has looked at them itself.
local function kick_again(looked)
  local to_wake = {}
  for _, open in ipairs(let_go) do
    if open.limiter and open.limiter.room <= 0 then park(open.unit, open.limiter) else to_wake[#to_wake + 1] = open end
  end
  for _, instance in ipairs(kicked) do
    local l, name = limiter_of(instance)
    if call('EXISTS', P .. 'L:' .. instance .. ':w') == 1 then
      local from = (not l or l.room > 0) and now + AGAIN_MS or room_from(l)
      if from then kick_at(instance, from) end
    elseif name ~= instance then
      call('ZREM', P .. 'L:' .. name .. ':i', instance)
    end
  end
  for _, open in ipairs(to_wake) do
    if not open.btype then
      wake_all_bands(open.queue, looked)
    elseif not (looked and looked[open.unit]) then
      wake(open.queue, open.btype, 1)
    end
  end
end
