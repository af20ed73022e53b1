-- Waking sleepers: the script that makes work picks who gets up, so nobody polls and nobody is forgotten (PROTOCOL.md, "Waking").
--- @include "lib/bands"
--- @include "lib/now"

local INBOX_MS = 600000
local waits_due = nil -- earliest time at which this call made something due, for the keeper

local function falls_due(at)
  if not waits_due or at < waits_due then waits_due = at end
end

local function mark(wid, what)
  local inbox = P .. 'in:' .. wid
  call('ZADD', inbox, NOW, what)
  call('PEXPIRE', inbox, INBOX_MS)
end

local function is_alive(wid)
  local till = call('ZSCORE', P .. 'ws', wid)
  return till and tonumber(till) > now
end

-- Up to n consumers that have the band's type loaded and said they sleep with free slots in this queue.
local function wake(queue, band_type, n)
  for _, cap in ipairs(call('ZRANGEBYSCORE', P .. 'tc:' .. band_type, now, '+inf', 'LIMIT', 0, 16)) do
    while n > 0 do
      local sleeper = call('ZPOPMIN', P .. 'idle:' .. queue .. '/' .. cap)[1]
      if not sleeper then break end
      if is_alive(sleeper) then
        mark(sleeper, 'w')
        n = n - 1
      end
    end
    if n == 0 then return end
  end
end

-- One consumer for each band of the queue that has work and is neither paused nor waits for a limiter, but for bands that the caller has looked
-- at itself. Who is woken for what nobody may claim finds its other queues full, wakes the next, and so on without end.
local function wake_all_bands(queue, looked)
  local bands = call('SMEMBERS', P .. 'bands:' .. queue)
  if #bands == 0 then return end
  local units, types, scopes = { queue }, {}, { 'q/' .. queue }
  for i, band in ipairs(bands) do
    types[i] = string.sub(parts_of(band), 3)
    units[i + 1], scopes[i + 1] = queue .. '/' .. band, 't/' .. string.gsub(types[i], '!$', '')
  end
  local waits, paused = call('SMISMEMBER', P .. 'parked', unpack(units)), call('HMGET', P .. 'pause', unpack(scopes))
  if waits[1] == 1 or paused[1] then return end
  for i, band in ipairs(bands) do
    if waits[i + 1] == 0 and not paused[i + 1] and not (looked and looked[units[i + 1]]) then
      local first = string.byte(band, -1) == 42 and call('ZRANGE', P .. 'ring:' .. queue .. '/' .. string.sub(band, 1, -2), 0, 0, 'WITHSCORES')
      if not first or (first[1] and first[2] ~= 'inf') then wake(queue, types[i], 1) end
    end
  end
end

-- No keeper: some live consumer is marked, and its next round makes it the keeper.
local function find_keeper()
  call('DEL', P .. 'keeper')
  local heir = call('ZREVRANGEBYSCORE', P .. 'ws', '+inf', '(' .. NOW, 'LIMIT', 0, 1)[1]
  if heir then mark(heir, 'w') end
end

-- A consumer is no more: none of its late calls may run, and what it was woken for, or kept in view, goes to somebody else.
local function sign_off(wid)
  local cap = call('HGET', P .. 'w:' .. wid, 'cap')
  call('ZREM', P .. 'ws', wid)
  call('UNLINK', P .. 'in:' .. wid)
  if cap and call('HSETNX', P .. 'w:' .. wid, 'left', NOW) == 1 then
    for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
      if call('ZREM', P .. 'idle:' .. queue .. '/' .. cap, wid) == 0 then wake_all_bands(queue) end
    end
  end
  if call('HGET', P .. 'keeper', 'wid') == wid then find_keeper() end
end

-- When the next thing falls due by itself, ms as text: a delayed job; with others, one that expires, a limiter that gets room; nil: nothing.
local function next_due(with_others)
  local due
  for _, index in ipairs(with_others and { 'delayed', 'exp', 'kick' } or { 'delayed' }) do
    local first = call('ZRANGE', P .. index, 0, 0, 'WITHSCORES')[2]
    if first and (not due or tonumber(first) < tonumber(due)) then due = first end
  end
  return due
end

-- The keeper's clock is set for the next due time; tell it of an earlier one.
local function tell_keeper(due)
  local keeper = call('HMGET', P .. 'keeper', 'wid', 'due')
  if keeper[1] and (keeper[2] == '' or due < tonumber(keeper[2])) then
    call('HSET', P .. 'keeper', 'due', due)
    mark(keeper[1], 'w')
  end
end
