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

-- The keeper's clock is set for the next due time; tell it of an earlier one.
local function tell_keeper(due)
  local keeper = call('HMGET', P .. 'keeper', 'wid', 'due')
  if keeper[1] and (keeper[2] == '' or due < tonumber(keeper[2])) then
    call('HSET', P .. 'keeper', 'due', due)
    mark(keeper[1], 'w')
  end
end
