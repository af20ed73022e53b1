--[[ audit_note — somebody was shown something that is shown to few: that is kept, and nothing else changes.
FLAGS  none: nothing is shown when it cannot be kept
KEYS   meta HASH tm:{p}:meta; the audit is formed under its tag
ARGV   who, action, target, reason, now ('' = server time)
OUT    OK
REPEAT another row: it may have been shown twice ]]
--- @include "lib/audit"

local who, action, target, reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

record_audit(who, action, target, reason, '')
return STATUS.OK
