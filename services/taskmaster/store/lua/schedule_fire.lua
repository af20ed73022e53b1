--[[ schedule_fire — one step of a schedule: note what was missed, make the job of an instant, go on to the next one. All of it, or nothing.
FLAGS  none: refused before it starts when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, definition that it was decided on, step (MessagePack map: slot next | held | extra, from: the instant that stands there (ms, as text),
       at: the instant to run (''= none), due: when that was due, next and next_due: what follows ('' = nothing), overlap: the schedule's policy, max:
       runs at most (0 = any), why: it cannot be run ('' = it can), by: who asked (extra), missed: [how many, first, last]),
       kinds, item (as submit.lua takes them; of one job, or none), key window ms, now ('' = server time)
OUT    [OK, outcome, job id or ''] | [ALREADY, outcome, job id] (this very step) | [CONFLICT] (edited, paused, fired by another, or not due yet) | [GONE] |
       [TOO_OLD, now ms] (the id's time is not within 30 s of the store's);
       outcome: fired | duplicate (its job is there) | skipped | queued (until the job before has ended) | refused | missed (nothing was to be run)
REPEAT ALREADY; an extra one: duplicate, or refused again ]]
--- @include "lib/admit"
--- @include "lib/cancel"

local id, definition, step, kinds, items, window = ARGV[1], ARGV[2], cmsgpack.unpack(ARGV[3]), cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5]), tonumber(ARGV[6])
local FIRES_KEPT = 200
local LIVE = { w = true, d = true, a = true, b = true }
local key, fires = P .. 'sc:' .. id, P .. 'scfire:' .. id
local slot, mark_of_step = step.slot, step.slot .. '/' .. step.from

-- ---------------------------------------------------------------- may this step be made
local f = call('HMGET', key, 'def', 'next', 'held', 'was', 'paused', 'job', 'runs', 'outcome')
if not f[1] then return { STATUS.GONE } end
local runs, previous = tonumber(f[7]) or 0, f[6]
if slot ~= 'extra' then
  if f[4] == mark_of_step then return { STATUS.ALREADY, f[8] or '', previous or '' } end
  if f[1] ~= definition or f[5] or f[slot == 'next' and 2 or 3] ~= step.from then return { STATUS.CONFLICT } end
  if slot == 'next' and (tonumber(call('ZSCORE', P .. 'scdue', id)) or math.huge) > now then return { STATUS.CONFLICT } end
end

-- ---------------------------------------------------------------- what becomes of the instant
local before = previous and cancellable(previous)
local is_live = before and LIVE[before[1] or '']

-- A job of that instant, as far back as the history goes: the key of its submission is forgotten earlier.
local function made_before(at)
  for _, row in ipairs(call('LRANGE', fires, 0, -1)) do
    if string.find(row, '"at":' .. at .. ',', 1, true) then
      local one = cjson.decode(row)
      if one.job ~= '' then return one.job end
    end
  end
end

local outcome, job, why = 'missed', '', step.why
if step.at ~= '' then
  local is_scheduled = slot == 'next'
  if why ~= '' then
    outcome = 'refused'
  elseif is_scheduled and is_live and step.overlap == 'skip' then
    outcome = 'skipped'
  elseif is_scheduled and step.overlap == 'queue-one' and (is_live or f[3]) then
    outcome = f[3] and 'skipped' or 'queued'
  elseif slot == 'held' and is_live then
    return { STATUS.CONFLICT }
  else
    outcome = 'fired'
    local kind, job_id, its_key, request = kinds[1], items[2], items[3], items[4]
    job = slot == 'extra' and made_before(step.at) or ''
    local answer = job == '' and known(kind, job_id, its_key, request, true)
    if answer and answer[1] == STATUS.TOO_OLD then return { STATUS.TOO_OLD, now } end
    if job ~= '' or answer then
      outcome, job = 'duplicate', job ~= '' and job or answer[3]
    else
      answer = refused(kind)
      if answer then
        outcome, why = 'refused', answer[1] == STATUS.REJECTED and 'the queue is ' .. answer[2] or 'another job has the unique work'
      end
    end
  end
end

-- ---------------------------------------------------------------- write
local function note(row)
  call('LPUSH', fires, cjson.encode(row))
end

if step.missed[1] > 0 then
  note({ at = step.missed[2], last = step.missed[3], count = step.missed[1], fired = now, lag = now - step.missed[2], job = '', outcome = 'missed', by = '', why = '' })
  call('HINCRBY', key, 'missed', step.missed[1])
  call('HSET', key, 'missed_at', NOW)
  call('ZADD', P .. 'scmissed', NOW, id)
end
if outcome == 'fired' then
  job = items[2]
  if slot == 'next' and is_live and step.overlap == 'cancel-previous' then
    if before[1] == 'a' then
      ask_to_stop(previous, before, 'schedule')
    else
      cancel_at_rest(previous, before, 'schedule', window)
      write_indexes()
    end
  end
  admit(kinds, items, {})
  write_indexes()
  open_bands()
  announce()
  write_rest()
  if slot ~= 'extra' then
    runs = runs + 1
    call('HSET', key, 'runs', runs)
  end
end
if step.at ~= '' and (slot ~= 'extra' or outcome == 'fired') then
  note({ at = tonumber(step.at), fired = now, lag = math.max(0, now - step.due), job = job, outcome = outcome, by = step.by, why = why })
  if outcome == 'skipped' or outcome == 'refused' then call('HINCRBY', key, outcome, 1) end
end
call('LTRIM', fires, 0, FIRES_KEPT - 1)
if slot == 'extra' then return { STATUS.OK, outcome, job } end

if job ~= '' then call('HSET', key, 'job', job) end
call('HSET', key, 'was', mark_of_step, 'outcome', outcome)
if slot == 'held' then
  call('HDEL', key, 'held')
  call('SREM', P .. 'scheld', id)
  if step.max > 0 and runs >= step.max then
    call('HDEL', key, 'next')
    call('ZREM', P .. 'scdue', id)
  end
  return { STATUS.OK, outcome, job }
end
if outcome == 'queued' then
  call('HSET', key, 'held', step.at)
  call('SADD', P .. 'scheld', id)
end
call('HSET', key, 'last', step.at ~= '' and step.at or string.format('%.0f', step.missed[3]))
if step.next ~= '' and (step.max == 0 or runs < step.max) then
  call('HSET', key, 'next', step.next)
  call('ZADD', P .. 'scdue', step.next_due, id)
else
  call('HDEL', key, 'next')
  call('ZREM', P .. 'scdue', id)
end
return { STATUS.OK, outcome, job }
