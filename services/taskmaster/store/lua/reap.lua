--[[ reap — end attempts whose lease ran out: back to the head of a lane of their own, or dead after too many losses.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   grace ms, losses at most, key window ms, now ('' = server time)
OUT    1 when more is left, then the ids that were reaped
REPEAT finds nothing the second time: expiry is read in the script ]]
--- @include "lib/state"
--- @include "lib/bury"

local grace, cap, window = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local A_CALL = 100

local lost = call('ZRANGEBYSCORE', P .. 'active', '-inf', now - grace, 'LIMIT', 0, A_CALL)
local out = { #lost == A_CALL and 1 or 0 }
for _, id in ipairs(lost) do
  local key = P .. 'j:' .. id
  local f = call('HMGET', key, 'st', 'q', 'ty', 'pr', 'ls', 'hb', 'ep', 'cr', 'rt', 'tk', 'kx', 'sa', 'hl', 'ln', 'ex')
  if f[1] ~= 'a' then
    call('ZREM', P .. 'active', id) -- a foreign hand
  else
    local queue, ty, losses = f[2], f[3], (tonumber(f[5]) or 0) + 1
    out[#out + 1] = id
    out_of_active(id, queue, f[13])
    if f[13] then call('HDEL', key, 'hl') end
    remember_attempt(id, cjson.encode({ tonumber(f[7]), 'lost', tonumber(f[12]) or now, now, owner(f[10]) }))
    count(ty .. '/' .. queue .. '/lost', 1)
    call('HSET', key, 'ls', losses, 'tk', '')
    if f[8] then
      call('HSET', key, 'st', 'x', 'fa', NOW, 'rs', 'cancelled')
      if f[11] then let_key_go(f[11], window) end
      into_finished(id, queue, 'x')
      count(ty .. '/' .. queue .. '/cancelled', 1)
      tell('x', id)
    elseif losses >= cap then
      bury(id, { q = queue, ty = ty, kx = f[11], ep = f[7], hb = f[6], ls = losses, rt = f[9], tk = '', ow = owner(f[10]) },
        'worker_lost', '', 'worker_lost:' .. ty, window)
    else
      if f[15] then into_expiring(id, f[15]) end
      call('HSET', key, 'st', 'w')
      into_lane(lane_of(queue, f[4], band_type(ty, losses), f[14]), id, true)
      tell('l', id)
    end
  end
end
write_indexes()
kick_freed()
open_bands()
announce()
write_rest()
return out
