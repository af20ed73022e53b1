--[[ operation_discard — a step of an operation that discards dead letters: they go, and it goes on behind them, in one.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, place before the step, place behind it, 1 when nothing is left, ids of dead letters (MessagePack list, at most 200), now ('' = server time)
OUT    OK | STALE (it does not run any more, or another process was first): nothing was done
REPEAT STALE: the place has been passed ]]
--- @include "lib/operation"
--- @include "lib/discard"

local id, before, behind, is_end, ids = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', cmsgpack.unpack(ARGV[5])

if op_at(id, before) ~= 'running' then return STATUS.STALE end
local by = call('HMGET', op_key(id), 'by', 'rs')
local gone = 0
for _, letter in ipairs(ids) do
  if not discard(letter, by[1] or '', by[2] or '', id) then gone = gone + 1 end
end
write_discarded()
op_advance(id, behind, #ids, { 'n/done', #ids, 'n/discarded', #ids - gone, 'n/gone', gone }, is_end)
return STATUS.OK
