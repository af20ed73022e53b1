-- Rings, slots and waiting lists held against each other, and put right.
--- @include "lib/examine"
--- @include "lib/park"

local SLACK_MS, LOOKED_AT_ONCE = 1000, 200

-- Whether a unit stands in a waiting list that somebody will look into.
local function waits_somewhere(unit, names, key)
  for name in string.gmatch(names, '[^,~*]+') do
    for _, instance in ipairs({ name, name .. '@' .. key }) do
      if call('ZSCORE', P .. 'L:' .. instance .. ':w', unit) and (limiter_of(instance) or call('ZSCORE', P .. 'kick', instance)) then
        if instance ~= name and call('ZADD', P .. 'L:' .. name .. ':i', 'NX', 0, instance) == 1 then
          report('instance_unlisted', instance, 'L:' .. name .. ':i', true)
        end
        return true
      end
    end
  end
  return false
end

local function limits_of(queue, btype, own)
  return TENANTS .. ',' .. (call('HGET', P .. 'q:' .. queue, 'lm') or '') .. ',' .. (call('HGET', P .. 'tl', string.match(btype, '^[^!]*')) or '') .. ',' .. own
end

-- A lane of a ring that is out of turn waits for a limiter. Of others, what whoever claims from it will ask is read.
local function examine_lane(name, ring)
  local queue, prio, btype = string.match(ring, '^ring:([^/]+)/([^/]+)/([^~]+)')
  local unit, key = queue .. '/' .. prio .. '/' .. btype .. '/' .. name, key_of(name)
  local limits = limits_of(queue, btype, string.match(name, '~.*') or '')
  if call('ZSCORE', P .. ring, name) ~= 'inf' then
    for its_name in string.gmatch(limits, '[^,~]+') do limiter_of(its_name .. '@' .. key) end
    return
  end
  if waits_somewhere(unit, limits, key) then return end
  local lane = lane_of(queue, prio, btype, name)
  call('ZREM', lane.ring, name)
  if call('EXISTS', lane.key) == 0 then return end
  report('lane_stranded', unit, ring, true)
  lane.is_new = false
  if lane.got == 0 then fresh[#fresh + 1], lane.got = lane, 1 end -- it is opened anew, and somebody woken
end

-- Queues and bands for which nobody is woken wait for a limiter, or are paused.
local function examine_parked()
  for _, unit in ipairs(call('SMEMBERS', P .. 'parked')) do
    local queue, _, band = unit_parts(unit)
    local btype, own = string.match(band, '^([^~*]*)([^*]*)')
    local names = band == '' and (call('HGET', P .. 'q:' .. queue, 'lm') or '') or limits_of(queue, btype, own)
    local is_paused = band == '' and call('HEXISTS', P .. 'pause', 'q/' .. queue) == 1
    if not is_paused and not waits_somewhere(unit, names, '-') and not refused[P .. 'pause'] then
      call('SREM', P .. 'parked', unit)
      report('unit_stranded', unit, 'parked', true)
      wake_all_bands(queue)
    end
  end
end

-- A slot is in use by an active job that says so.
local function examine_slot(id, here)
  local instance, f = string.match(here, '^L:(.*):s$'), call('HMGET', P .. 'j:' .. id, 'st', 'hl')
  if f[1] == 'a' and string.find(',' .. (f[2] or '') .. ',', ',' .. instance .. ',', 1, true) then return end
  call('ZREM', P .. here, id)
  freed[instance] = true
  report('slot_leaked', id, here, true)
end

-- What a rate remembers ends by itself. That is written last, so a claim that a foreign key stopped half way leaves it without an end.
local function examine_memory(instance)
  for _, part in ipairs({ ':t', ':b' }) do
    local key = P .. 'L:' .. instance .. part
    if call('PTTL', key) == -1 then
      local l = limiter_of(instance)
      local counts_ms = l and l.per and l.per * (l.tokens and l.burst / l.max or 1) or 0
      call('PEXPIRE', key, math.ceil(counts_ms) + RATE_KEPT_MS)
      report('rate_endless', instance, short(key), true)
    end
  end
end

-- Units wait only where somebody will look in time.
local function examine_kick(instance)
  if call('EXISTS', P .. 'L:' .. instance .. ':w') == 0 then return end
  local l = limiter_of(instance)
  local at = (not l or l.room > 0) and now or room_from(l)
  local due = tonumber(call('ZSCORE', P .. 'kick', instance) or nil)
  if at and (not due or due > at + SLACK_MS) then
    kick_at(instance, at)
    report('kick_missing', instance, 'kick', true)
  end
end

-- A lane that has its turn waits for nothing.
local function examine_unit(unit, instance)
  local queue, prio, btype, name = unit_parts(unit)
  if not name or call('ZSCORE', lane_of(queue, prio, btype, name).ring, name) == 'inf' then return end
  call('ZREM', P .. 'L:' .. instance .. ':w', unit)
  report('wait_leaked', unit, 'L:' .. instance .. ':w', true)
end

local function examine_slots(instance)
  local slots = 'L:' .. instance .. ':s'
  for _, id in ipairs(call('ZRANGE', P .. slots, 0, LOOKED_AT_ONCE - 1)) do examine_slot(id, slots) end
end

-- An instance of a limiter that is by key, for which something waits.
local function examine_instance(instance, here)
  local waiting = P .. 'L:' .. instance .. ':w'
  examine_slots(instance)
  examine_memory(instance)
  for _, unit in ipairs(call('ZRANGE', waiting, 0, LOOKED_AT_ONCE - 1)) do examine_unit(unit, instance) end
  if call('EXISTS', waiting) == 0 then
    call('ZREM', P .. here, instance)
    report('index_wrong', instance, here, true)
  end
  examine_kick(instance)
end
