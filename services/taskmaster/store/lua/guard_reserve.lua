--[[ guard_reserve — the licence to do one effect of a lineage, for one call of one attempt.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, token, call (1, 2, 3 … of this attempt), effect, name, key, again ('1': take it over from whoever was not heard of since, or ''),
       now ('' = server time)
OUT    [OK] | [DONE, result, id of the job that did it] | [UNKNOWN, id of the job that reserved it, ms when] | [STALE] | [REJECTED] (too many effects)
REPEAT the same call: OK while it is reserved; after it was given back: STALE ]]
--- @include "lib/effects"

local id, token, its_call, effect, name, key, again = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local EFFECTS_AT_MOST = 2000 -- of one lineage; two fields each

local f = call('HMGET', P .. 'j:' .. id, 'st', 'tk', 'rt')
if f[1] ~= 'a' or f[2] ~= token then return { STATUS.STALE } end
local root = f[3] or id
local row = effect_row(root, effect)
local is_mine = row and row[TOKEN] == token and row[CALL] == its_call
local is_reserved = row and row[STATE] == 'r'
if row and row[STATE] == 'd' then return { STATUS.DONE, call('HGET', P .. 'e:' .. root, 'r/' .. effect) or '', row[JOB] } end
if is_reserved and is_mine then return { STATUS.OK } end
if is_reserved and again ~= '1' then return { STATUS.UNKNOWN, row[JOB], row[RESERVED] } end
if row and row[TOKEN] == token and row[CALL] >= its_call then return { STATUS.STALE } end -- a late copy of a call that is over
if not row and call('HLEN', P .. 'e:' .. root) >= EFFECTS_AT_MOST then return { STATUS.REJECTED } end
call('HSET', P .. 'e:' .. root, effect, cjson.encode({ 'r', token, its_call, id, name, key, now, 0, '', '', '' }))
if not is_reserved then call('HINCRBY', P .. 'e:' .. root, '#', 1) end
call('ZADD', P .. 'eu', NOW, root .. '/' .. effect)
hold_lineage(root, id, 'e/' .. effect)
call('HSET', P .. 'j:' .. id, 'gd', 1)
return { STATUS.OK }
