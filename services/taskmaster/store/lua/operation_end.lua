--[[ operation_end — an operation is to do no more: a person says so, or its jobs fail in another partition.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, state (cancelled | stopped), who, reason, why, now ('' = server time)
OUT    [OK] | [ALREADY] | [CONFLICT, state] (it has ended otherwise) | [GONE]
REPEAT ALREADY ]]
--- @include "lib/operation"

local id, state, who, reason, why = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local is = call('HGET', op_key(id), 'st')
if not is then return { STATUS.GONE } end
if is == state then return { STATUS.ALREADY } end
if is ~= 'running' then return { STATUS.CONFLICT, is } end
op_end(id, state, why, who, reason)
return { STATUS.OK }
