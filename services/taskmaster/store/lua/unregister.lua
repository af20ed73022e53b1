--[[ unregister — a consumer goes. Its record stays ten minutes, so that its late calls are still refused.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid, now ('' = server time)
OUT    OK
REPEAT the same ]]
--- @include "lib/status"
--- @include "lib/state"

local wid = ARGV[1]
local cap = call('HGET', P .. 'w:' .. wid, 'cap')
call('ZREM', P .. 'ws', wid)
call('UNLINK', P .. 'in:' .. wid)
if cap then
  for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
    -- It may have been picked for work that it never came to fetch: pass the call on.
    if call('ZREM', P .. 'idle:' .. queue .. '/' .. cap, wid) == 0 then
      for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do wake(queue, string.sub(band, 3), 1) end
    end
  end
end
if call('HGET', P .. 'keeper', 'wid') == wid then
  call('DEL', P .. 'keeper')
  local heir = call('ZREVRANGEBYSCORE', P .. 'ws', '+inf', now, 'LIMIT', 0, 1)[1]
  if heir then mark(heir, 'w') end -- its next round makes it the keeper
end
return STATUS.OK
