--[[ patch — change a job that waits or is delayed: its priority, when it is due, its tags, what was submitted for it.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, revision that the change was decided on ('' = whatever is there), op (random, of this request),
       changes (MessagePack map of those wanted: pr priority 0-3, due ms by the server's clock (0: at once), tg tags, b blob), now ('' = server time)
OUT    [OK, state, revision] | [ALREADY, state, revision] | [CONFLICT, state, revision] (it runs or has ended, or was changed since) | [GONE]
REPEAT ALREADY, until another change ]]
--- @include "lib/state"

local id, known, op, changes = ARGV[1], ARGV[2], ARGV[3], cmsgpack.unpack(ARGV[4])
local key = P .. 'j:' .. id

local f = call('HMGET', key, 'st', 'q', 'ty', 'pr', 'ls', 'ln', 'ra', 'tg', 'rv', 'co', 'lf')
local state, queue, rev = f[1], f[2], tonumber(f[9]) or 0
if not state then return { STATUS.GONE } end
if f[10] == op then return { STATUS.ALREADY, state, rev } end
if (state ~= 'w' and state ~= 'd') or (known ~= '' and tonumber(known) ~= rev) then return { STATUS.CONFLICT, state, rev } end

local due = changes.due or state == 'd' and tonumber(f[7]) or 0
local after = due > now and 'd' or 'w'
if changes.pr or changes.due then
  out_of_rest(id, state, queue, f[4], band_type(f[3], f[5]), f[6])
  write_indexes() -- it may go back to where it was
  if changes.pr then call('HSET', key, 'pr', changes.pr) end
  if after == 'd' then
    call('HSET', key, 'st', 'd', 'ra', due)
    into_delayed(id, queue, due)
  else
    call('HSET', key, 'st', 'w')
    if state == 'd' then call('HSET', key, 'ra', NOW) end
    into_lane(lane_of(queue, changes.pr or f[4], band_type(f[3], f[5]), f[6]), id, false, f[11])
  end
  if after ~= state then tell(after == 'w' and 'p' or 'd', id) end
else
  after = state
end
if changes.tg then
  for tag in string.gmatch(f[8] or '', '[^,]+') do call('ZREM', P .. 'ig:' .. tag, id) end
  for _, tag in ipairs(changes.tg) do add(P .. 'ig:' .. tag, NOW, id) end
  if #changes.tg > 0 then call('HSET', key, 'tg', table.concat(changes.tg, ',')) else call('HDEL', key, 'tg') end
end
if changes.b then
  call('SET', P .. 'b:' .. id, changes.b)
  call('HSET', key, 'sz', #changes.b)
end
call('HSET', key, 'rv', rev + 1, 'co', op)
write_indexes()
open_bands()
announce()
write_rest()
return { STATUS.OK, after, rev + 1 }
