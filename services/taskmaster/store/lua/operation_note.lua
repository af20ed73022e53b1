--[[ operation_note — a step of an operation has been carried out: go on behind it. Taken also when it was ended meanwhile: what was done was done.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, place before the step, place behind it, 1 when nothing is left, how many entries it acted on, counts (MessagePack list: field, n, ...),
       jobs that it made (MessagePack list of ids), now ('' = server time)
OUT    OK | STALE (another process was first)
REPEAT STALE: the place has been passed ]]
--- @include "lib/operation"

local id, before, behind, is_end = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local spent, counts, made = tonumber(ARGV[5]), cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7])

if not op_at(id, before) then return STATUS.STALE end
if #made > 0 then
  local rows = {}
  for i, job in ipairs(made) do rows[2 * i - 1], rows[2 * i] = NOW, job end
  call('ZADD', P .. 'opj:' .. id, unpack(rows))
  call('ZADD', P .. 'ops', 'NX', call('HGET', op_key(id), 'cm'), id)
end
op_advance(id, behind, spent, counts, is_end)
return STATUS.OK
