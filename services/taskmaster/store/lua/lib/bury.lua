-- Terminal failure: state, dead-letter record and its indexes in one step. The record's id is the job's id, so there can be one.
--- @include "lib/state"

-- job: {q, ty, rt, ep, hb, ls, kx, fl, sz} as read, tk: the token to keep as the memory for repeats, '' if a lost worker had it, ow: who ran it; failure: opaque bytes or ''.
local function bury(id, job, reason, failure, fingerprint, window)
  local attempts = (tonumber(job.ep) or 0) - (tonumber(job.hb) or 0)
  call('HSET', P .. 'd:' .. id, 'id', id, 'q', job.q, 'ty', job.ty, 'rs', reason, 'er', failure, 'fp', fingerprint, 'at', attempts,
    'ls', job.ls or 0, 'fa', NOW, 'rt', job.rt or id, 'ow', job.ow, 'b', call('GET', P .. 'b:' .. id) or '')
  add(P .. 'dlq:' .. job.q, NOW, id)
  add(P .. 'fp:' .. fingerprint, NOW, id)
  add(P .. 'fps', NOW, fingerprint)
  call('HSET', P .. 'j:' .. id, 'st', 'f', 'fa', NOW, 'rs', reason, 'tk', job.tk)
  local kept = #failure
  if failure ~= '' then
    call('SET', P .. 'r:' .. id, failure)
    call('HSET', P .. 'j:' .. id, 'rz', kept)
  else
    kept = keep_old_error(id, job.fl)
  end
  if job.kx then let_key_go(job.kx, window) end
  into_finished(id, job.q, 'f', (tonumber(job.sz) or 0) + kept)
  count(job.ty .. '/' .. job.q .. '/failed', 1)
  tell('f', id)
end

-- An ended attempt as the history shows it; the worker's own rows have the same shape (model.job.Attempt).
local HISTORY_KEPT = 50
local function remember_attempt(id, row)
  local key = P .. 'h:' .. id
  if call('RPUSH', key, row) > HISTORY_KEPT then
    local first = call('LPOP', key) -- the first attempt stays, the oldest but one goes
    call('LSET', key, 0, first)
  end
end
