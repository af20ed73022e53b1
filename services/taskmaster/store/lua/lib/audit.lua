-- What people did to jobs and effects, in the same step as the deed. Bounded: the oldest go.
--- @include "lib/tag"
--- @include "lib/now"

local AUDIT_KEPT = 100000

local function record_audit(who, action, target, reason, detail)
  call('XADD', P .. 'audit', 'MAXLEN', '~', AUDIT_KEPT, '*', 'at', NOW, 'who', who, 'action', action, 'target', target, 'reason', reason, 'detail', detail)
end
