--[[ operation_cancel — a step of an operation that cancels jobs that are not running: they end, and it goes on behind them, in one.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, place before the step, place behind it, 1 when nothing is left, ids of jobs (MessagePack list, at most 200), key window ms,
       now ('' = server time)
OUT    OK | STALE (it does not run any more, or another process was first): nothing was done
REPEAT STALE: the place has been passed ]]
--- @include "lib/operation"
--- @include "lib/cancel"

local id, before, behind, is_end = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local ids, window = cmsgpack.unpack(ARGV[5]), tonumber(ARGV[6])

if op_at(id, before) ~= 'running' then return STATUS.STALE end
local who, cancelled = string.sub(call('HGET', op_key(id), 'by') or '', 1, 40), 0
for _, job in ipairs(ids) do
  local f = cancellable(job)
  if f[1] == 'w' or f[1] == 'd' then
    cancel_at_rest(job, f, who, window)
    cancelled = cancelled + 1
  end
end
write_indexes()
write_rest()
op_advance(id, behind, #ids, { 'n/done', #ids, 'n/cancelled', cancelled, 'n/gone', #ids - cancelled }, is_end)
return STATUS.OK
