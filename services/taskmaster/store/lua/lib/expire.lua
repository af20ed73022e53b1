-- Jobs that came too late to begin (`ex`): cancelled, reason `expired`.
--- @include "lib/state"

-- One that is out of its lane or index already.
local function expire(id, window)
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'q', 'ty', 'kx')
  call('HSET', key, 'st', 'x', 'fa', NOW, 'rs', 'expired')
  rem(P .. 'exp', id)
  if f[3] then let_key_go(f[3], window) end
  into_finished(id, f[1], 'x')
  count(f[2] .. '/' .. f[1] .. '/cancelled', 1)
  tell('x', id)
end

-- At most `limit` of those whose time is over, wherever they wait; answers 1 when there may be more. To be called with the indexes written.
local function expire_due(limit, window)
  local due = call('ZRANGEBYSCORE', P .. 'exp', '-inf', now, 'LIMIT', 0, limit)
  for _, id in ipairs(due) do
    local f = call('HMGET', P .. 'j:' .. id, 'st', 'q', 'pr', 'ty', 'ls', 'ln')
    if f[1] == 'w' or f[1] == 'd' then
      out_of_rest(id, f[1], f[2], f[3], band_type(f[4], f[5]), f[6])
      expire(id, window)
    else
      rem(P .. 'exp', id) -- a foreign hand
    end
  end
  return #due == limit and 1 or 0
end
