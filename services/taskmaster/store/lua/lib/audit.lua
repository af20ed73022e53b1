-- What people did to jobs and effects, in the same step as the deed. Bounded: the oldest go. Each row holds the hash of the row before it, and
-- `chain` that of the newest (PROTOCOL.md, "Audit"; `model/chain.py` reckons the same).
--- @include "lib/tag"
--- @include "lib/now"

local AUDIT_KEPT = 100000

local function record_audit(who, action, target, reason, detail)
  local head = call('HMGET', P .. 'chain', 'n', 'h')
  local n, before = string.format('%d', (tonumber(head[1]) or 0) + 1), head[2] or ''
  local entry = call('XADD', P .. 'audit', 'MAXLEN', '~', AUDIT_KEPT, '*',
    'at', NOW, 'who', who, 'action', action, 'target', target, 'reason', reason, 'detail', detail, 'n', n, 'p', before)
  local row = { before }
  for i, text in ipairs({ entry, n, NOW, who, action, target, reason, detail }) do row[i + 1] = #text .. ':' .. text end
  call('HSET', P .. 'chain', 'n', n, 'h', redis.sha1hex(table.concat(row)))
end
