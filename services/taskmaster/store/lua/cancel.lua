--[[ cancel — end a job that is not running, or ask the one who runs it to stop.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, who, key window ms, now ('' = server time)
OUT    [OK] (ended) | [CANCELLING] (asked) | [ALREADY] | [CONFLICT, state] (ended otherwise) | [GONE]
REPEAT ALREADY, or CANCELLING again ]]
--- @include "lib/state"

local id, who, window = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = P .. 'j:' .. id
local f = call('HMGET', key, 'st', 'q', 'ty', 'pr', 'ls', 'tk', 'kx', 'cr', 'ln')
local state = f[1]
if not state then return { STATUS.GONE } end
if state == 'x' then return { STATUS.ALREADY } end
if state == 'c' or state == 'f' then return { STATUS.CONFLICT, state } end
if state == 'a' then
  if not f[8] then call('HSET', key, 'cr', who .. ' ' .. now) end
  mark(owner(f[6]), 'c/' .. id)
  return { STATUS.CANCELLING }
end
out_of_rest(id, state, f[2], f[4], band_type(f[3], f[5]), f[9])
rem(P .. 'exp', id)
into_finished(id, f[2], 'x')
count(f[3] .. '/' .. f[2] .. '/cancelled', 1)
tell('x', id)
call('HSET', key, 'st', 'x', 'fa', NOW, 'rs', 'cancelled', 'cr', who .. ' ' .. now)
if f[7] then let_key_go(f[7], window) end
write_indexes()
write_rest()
return { STATUS.OK }
