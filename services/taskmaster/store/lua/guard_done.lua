--[[ guard_done — the holder of a reservation says that the effect happened, or that it surely did not. Facts: taken also when the lease is lost.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   root id, effect, token, call, happened ('1' or ''), result, now ('' = server time)
OUT    OK | ALREADY | STALE (somebody else has it, or it was settled otherwise) | GONE (nothing of the lineage is left)
REPEAT ALREADY ]]
--- @include "lib/effects"

local root, effect, token, its_call, happened, result = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]

local row = effect_row(root, effect)
if not row then return STATUS.GONE end
if row[TOKEN] ~= token or row[CALL] ~= its_call then return STATUS.STALE end
if row[STATE] ~= 'r' then return (row[STATE] == 'd') == happened and STATUS.ALREADY or STATUS.STALE end
settle_effect(root, effect, row, happened, is_owner_current(row) and 'own' or 'late', '', '', result)
return STATUS.OK
