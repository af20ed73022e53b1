--[[ cancel — end a job that is not running, or ask the one who runs it to stop.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, who, key window ms, now ('' = server time)
OUT    [OK] (ended) | [CANCELLING] (asked) | [ALREADY] | [CONFLICT, state] (ended otherwise) | [GONE]
REPEAT ALREADY, or CANCELLING again ]]
--- @include "lib/cancel"

local id, who, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local f = cancellable(id)
local state = f[1]
if not state then return { STATUS.GONE } end
if state == 'x' then return { STATUS.ALREADY } end
if state == 'c' or state == 'f' then return { STATUS.CONFLICT, state } end
if state == 'a' then
  ask_to_stop(id, f, who)
  return { STATUS.CANCELLING }
end
cancel_at_rest(id, f, who, window)
write_indexes()
write_rest()
return { STATUS.OK }
