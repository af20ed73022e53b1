-- Due jobs into their lanes.
--- @include "lib/state"

-- At most `limit`; answers 1 when more are due.
local function promote(limit)
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now, 'LIMIT', 0, limit)
  if #due > 0 then reserve_seq(#due) end
  for _, id in ipairs(due) do
    local key = P .. 'j:' .. id
    local f = call('HMGET', key, 'st', 'q', 'pr', 'ty', 'ls', 'ln', 'lf')
    rem(P .. 'delayed', id)
    if f[1] == 'd' then
      call('HSET', key, 'st', 'w')
      count(f[2] .. '/d', -1)
      into_lane(lane_of(f[2], f[3], band_type(f[4], f[5]), f[6]), id, false, f[7])
      tell('p', id)
    end
  end
  return #due == limit and 1 or 0
end
