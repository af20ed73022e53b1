--[[ mend — keys found by a walk over all of them, which no index needs to name: each is held against what it belongs to, and put right.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   names without the tag (MessagePack list, at most 200), key window ms, now ('' = server time)
OUT    repairs as JSON rows
REPEAT finds nothing the second time, but for what it may only tell ]]
--- @include "lib/careful"
--- @include "lib/kinds"
--- @include "lib/examine_flow"

local names, window = cmsgpack.unpack(ARGV[1]), tonumber(ARGV[2])
local REPORTED = 200

local function mend_job(id)
  local f = job_of(id)
  if not f then return end
  local listing = P .. 'it:' .. f.ty
  if not call('ZSCORE', listing, id) and not refused[listing] then
    call('ZADD', listing, made_ms(id), id)
    call('HSETNX', P .. 'n', f.ty .. '/' .. f.q .. '/created', 0)
    report('type_unlisted', id, short(listing), true)
  end
  examine_job(id, listing, window)
end

-- What is left of a job that is gone.
local function mend_remains(id)
  if call('EXISTS', P .. 'j:' .. id) == 1 then return end
  if call('UNLINK', P .. 'b:' .. id, P .. 'r:' .. id, P .. 'h:' .. id, P .. 'g:' .. id) ~= 0 then report('record_lost', id, '', true) end
end

-- A key outlives its job for the window; a job that vanished did not let it go.
local function mend_key(digest)
  local key = P .. 'k:' .. digest
  local id = string.sub(call('GET', key) or '', 1, 36)
  if call('PTTL', key) ~= -1 or call('EXISTS', P .. 'j:' .. id) == 1 then return end
  let_key_go(digest, window)
  report('key_endless', id, short(key), true)
end

-- A dead-letter record is listed, also when its job is gone. Its group is the sweep's question.
local function mend_letter(id)
  local f = call('HMGET', P .. 'd:' .. id, 'q', 'fa')
  local listing = f[1] and P .. 'dlq:' .. f[1]
  if not listing or call('ZSCORE', listing, id) or refused[listing] then return end
  call('ZADD', listing, f[2] or NOW, id)
  report('dead_letter_unlisted', id, short(listing), true)
end

-- A limiter is listed; and so is an instance of one that is by key, if something waits for it: only those does the sweep look at.
local function mend_limiter(its)
  local instance, part = string.match(its, '^(.+@.*):([stbw])$')
  if part == 's' then
    examine_slots(instance)
  elseif part == 't' or part == 'b' then
    examine_memory(instance)
  elseif part == 'w' then
    local listing = 'L:' .. string.match(instance, '^[^@]+') .. ':i'
    if call('ZADD', P .. listing, 'NX', 0, instance) == 1 then report('instance_unlisted', instance, listing, true) end
  elseif not string.find(its, ':', 1, true) and call('HEXISTS', P .. 'L:' .. its, 'kind') == 1 and call('SADD', P .. 'ls', its) == 1 then
    report('limiter_unlisted', its, 'ls', true)
  end
end

for _, name in ipairs(names) do
  local foreign = foreign_type(name)
  local family, its = string.match(name, '^([Lbdghjkr]):(.+)$')
  if foreign then
    report('foreign_key', name, foreign, false)
  elseif family == 'L' then
    mend_limiter(its)
  elseif family == 'j' then
    mend_job(its)
  elseif family == 'd' then
    mend_letter(its)
  elseif family == 'k' then
    mend_key(its)
  elseif family then
    mend_remains(its)
  end
end
write_indexes()
kick_freed()
open_bands()
announce()
write_rest()
if #rows > 0 then
  call('LPUSH', P .. 'swept', unpack(rows))
  call('LTRIM', P .. 'swept', 0, REPORTED - 1)
end
return rows
