-- Waking sleepers: the script that makes work picks who gets up, so nobody polls and nobody is forgotten (PROTOCOL.md, "Waking").
--- @include "lib/tag"
--- @include "lib/now"

local INBOX_MS = 600000

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

-- One consumer for each band of the queue that has work.
local function wake_all_bands(queue)
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do wake(queue, string.sub(band, 3), 1) end
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

-- The keeper's clock is set for the next due time; tell it of an earlier one.
local function tell_keeper(due)
  local keeper = call('HMGET', P .. 'keeper', 'wid', 'due')
  if keeper[1] and (keeper[2] == '' or due < tonumber(keeper[2])) then
    call('HSET', P .. 'keeper', 'due', due)
    mark(keeper[1], 'w')
  end
end
