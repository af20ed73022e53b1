--[[ operation_open — record an operation over many jobs; the workers carry it out.
FLAGS  none: refused when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, digest of the request, fields (MessagePack list: field, value, ...), who, reason, what it is about (for the audit), now ('' = server time)
OUT    OK | ALREADY | REUSED (the id is that of another request) | REJECTED (too many are open)
REPEAT ALREADY ]]
--- @include "lib/operation"

local id, request, fields, who, reason, detail = ARGV[1], ARGV[2], cmsgpack.unpack(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local OPEN_AT_MOST, LOGGED, OLD_A_CALL = 50, 1000, 100

local known = call('HGET', op_key(id), 'rq')
if known then return known == request and STATUS.ALREADY or STATUS.REUSED end
if call('ZCARD', P .. 'ops') >= OPEN_AT_MOST then return STATUS.REJECTED end
call('HSET', op_key(id), 'rq', request, 'st', 'running', 'cm', NOW, 'cu', '', 'tk', 0, 'ta', NOW, 'by', who, 'rs', reason,
  'sq', call('HGET', KEYS[1], 'seq') or 0, unpack(fields))
call('ZADD', P .. 'ops', NOW, id)
call('ZADD', P .. 'oplog', NOW, id)
record_audit(who, 'operation.started', id, reason, detail)

-- The list forgets those whose records are, and the oldest beyond its bound.
local excess = call('ZCARD', P .. 'oplog') - LOGGED
for _, old in ipairs(call('ZRANGE', P .. 'oplog', 0, OLD_A_CALL - 1)) do
  if not call('ZSCORE', P .. 'ops', old) and (excess > 0 or call('EXISTS', op_key(old)) == 0) then
    call('UNLINK', op_key(old))
    call('ZREM', P .. 'oplog', old)
    excess = excess - 1
  end
end
return STATUS.OK
