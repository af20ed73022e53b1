--[[ prune — retention by age, and by count and bytes where nothing finishes any more.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   keep (MessagePack of calls.Limits, as cycle takes it), now ('' = server time)
OUT    1 when more is left: call again
REPEAT finds nothing the second time ]]
--- @include "lib/purge"

local keep = cmsgpack.unpack(ARGV[1])
local A_CALL = 64 -- two milliseconds at most in which nobody else is answered

local room = A_CALL
for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
  for _, state in ipairs({ 'c', 'f', 'x' }) do
    local key, rule = P .. 'fin:' .. queue .. '/' .. state, kept(keep, queue, state)
    room = room - prune_index(queue, state, rule[1], room, rule[3])
    if room > 0 then
      local old = #call('ZRANGEBYSCORE', key, '-inf', now - rule[2], 'LIMIT', 0, room)
      if old > 0 then room = room - purge_oldest(key, old, queue, state) end
    end
    if room == 0 then break end
  end
  if room == 0 then break end
end
write_indexes()
write_purged()
write_rest()
return room == 0 and 1 or 0
