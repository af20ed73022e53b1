-- Ending a job that is not running, or asking the one who runs it to stop.
--- @include "lib/state"

-- What must be known of it.
local function cancellable(id)
  return call('HMGET', P .. 'j:' .. id, 'st', 'q', 'ty', 'pr', 'ls', 'tk', 'kx', 'cr', 'sz', 'fl', 'ln')
end

-- f: as `cancellable` read it; the job waits or is delayed.
local function cancel_at_rest(id, f, who, window)
  local state = f[1]
  out_of_rest(id, state, f[2], f[4], band_type(f[3], f[5]), f[11])
  rem(P .. 'exp', id)
  call('HSET', P .. 'j:' .. id, 'st', 'x', 'fa', NOW, 'rs', 'cancelled', 'cr', who .. ' ' .. now)
  into_finished(id, f[2], 'x', (tonumber(f[9]) or 0) + keep_old_error(id, f[10]))
  count(f[3] .. '/' .. f[2] .. '/cancelled', 1)
  tell('x', id)
  if f[7] then let_key_go(f[7], window) end
end

-- f: as `cancellable` read it; the job runs.
local function ask_to_stop(id, f, who)
  if not f[8] then call('HSET', P .. 'j:' .. id, 'cr', who .. ' ' .. now) end
  mark(owner(f[6]), 'c/' .. id)
end
