--[[ prune — retention by age, and by count where nothing finishes any more.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   keep (MessagePack list of three, per queue: count and age in ms of completed, failed, cancelled), now ('' = server time)
OUT    1 when more is left: call again
REPEAT finds nothing the second time ]]
--- @include "lib/purge"

local keep = cmsgpack.unpack(ARGV[1])
local A_CALL = 200

local room = A_CALL
for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
  for i, state in ipairs({ 'c', 'f', 'x' }) do
    local key = P .. 'fin:' .. queue .. '/' .. state
    room = room - prune_index(queue, state, keep[i][1], room)
    if room > 0 then
      local old = #call('ZRANGEBYSCORE', key, '-inf', now - keep[i][2], 'LIMIT', 0, room)
      if old > 0 then room = room - prune_index(queue, state, call('ZCARD', key) - old, room) end
    end
    if room == 0 then break end
  end
  if room == 0 then break end
end
write_indexes()
write_purged()
write_rest()
return room == 0 and 1 or 0
