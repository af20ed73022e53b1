-- Units that wait until a limiter has room: a queue, a band of it, or one lane. What holds for the head of a unit holds for all of it, so a
-- million jobs behind one limit are one row (PROTOCOL.md, "Limiters").
--- @include "lib/limits"
--- @include "lib/state"

local LET_GO_A_CALL, KICKS_A_CALL, AGAIN_MS = 32, 8, 10
local kicked, let_go = {}, {} -- limiters that were looked at in this call; {queue, band type or nil} that wait no more

-- tag: the unit's place among those that wait. A lane stays in its ring, behind all that are ready.
local function park(unit, tag, l, ring, name)
  if ring then
    call('ZADD', ring, '+inf', name)
  else
    call('SADD', P .. 'parked', unit)
  end
  call('ZADD', l.key .. ':w', 'NX', tag, unit)
  if l.instance ~= l.name then call('ZADD', P .. 'L:' .. l.name .. ':i', 0, l.instance) end
  local from = room_from(l)
  if from then kick_at(l.instance, from) end
end

local function unpark(unit, tag)
  local queue, prio, btype, name = string.match(unit, '^([^/]+)/?([^/]*)/?([^/]*)/?(.*)$')
  if name ~= '' then
    local ring = P .. 'ring:' .. queue .. '/' .. prio .. '/' .. btype
    if call('EXISTS', P .. 'lane:' .. unit) == 0 then
      call('ZREM', ring, name)
      return
    end
    call('ZADD', ring, 'XX', tag, name)
  else
    call('SREM', P .. 'parked', unit)
  end
  let_go[#let_go + 1] = { queue, prio ~= '' and string.gsub(btype, '%*$', '') or nil }
end

-- Limiters with room let go of as many units as they could serve, smallest tag first. Whether that was enough is seen after the fetch.
local function kick()
  for _, instance in ipairs(call('ZRANGEBYSCORE', P .. 'kick', '-inf', now, 'LIMIT', 0, KICKS_A_CALL)) do
    local l = limiter(string.match(instance, '^([^@]+)@?(.*)$'))
    local room = l and math.min(l.room, LET_GO_A_CALL) or LET_GO_A_CALL
    local units = room > 0 and call('ZPOPMIN', P .. 'L:' .. instance .. ':w', room) or {}
    for i = 1, #units, 2 do unpark(units[i], units[i + 1]) end
    call('ZREM', P .. 'kick', instance)
    kicked[#kicked + 1] = instance
  end
end

-- A unit that was let go may have been refused by its next limiter, or nobody had a slot for it. So as long as units wait and there is room,
-- the limiter is looked at again; letting go of one for each slot that came free would strand the rest.
local function kick_again()
  for _, instance in ipairs(kicked) do
    local name, key = string.match(instance, '^([^@]+)@?(.*)$')
    local l = limiter(name, key)
    if call('EXISTS', P .. 'L:' .. instance .. ':w') == 1 then
      local from = (not l or l.room > 0) and now + AGAIN_MS or room_from(l)
      if from then kick_at(instance, from) end
    elseif name ~= instance then
      call('ZREM', P .. 'L:' .. name .. ':i', instance)
    end
  end
end
