--[[ guard_settle — a person says what became of an effect that nobody was heard of since. Audited.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   root id, effect, happened ('1' or ''), who, reason, ms for which a holder of a lost lease may still be at it, now ('' = server time)
OUT    [OK] | [ALREADY] | [CONFLICT, why] (running: its attempt is alive; recent: it may still be at it; settled: otherwise) | [GONE]
REPEAT ALREADY ]]
--- @include "lib/effects"
--- @include "lib/audit"

local root, effect, happened, who, reason, at_it_ms = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4], ARGV[5], tonumber(ARGV[6])

local row = effect_row(root, effect)
if not row then return { STATUS.GONE } end
if row[STATE] ~= 'r' then
  if (row[STATE] == 'd') == happened then return { STATUS.ALREADY } end
  return { STATUS.CONFLICT, 'settled' }
end
if is_owner_current(row) then return { STATUS.CONFLICT, 'running' } end
if not happened and now < row[RESERVED] + at_it_ms then return { STATUS.CONFLICT, 'recent' } end
settle_effect(root, effect, row, happened, 'person', who, reason, '')
record_audit(who, 'effect.settled', root .. '/' .. effect, reason, happened and 'happened' or 'did not happen')
return { STATUS.OK }
