-- Operations over many jobs: a record `op:<id>`, those that somebody must look after in `ops`, all in `oplog`, and in `opj:<id>` the jobs that
-- a replay has made and that are not known to have ended, by when somebody looked last.
--- @include "lib/tag"
--- @include "lib/now"
--- @include "lib/audit"

local OP_KEPT_MS = 2592000000 -- 30 days after its end
local OP_BURST = 1.25 -- seconds of its rate that an operation may save up: steps come about once a second
local OP_LOOKED_AFTER_MS = 3600000 -- so long after its end the jobs that it made are followed

local function op_key(id)
  return P .. 'op:' .. id
end

-- How many entries it may act on now.
local function op_tokens(rate, tokens, as_of)
  rate = tonumber(rate) or 0
  return math.min(math.max(1, OP_BURST * rate), (tonumber(tokens) or 0) + rate * math.max(0, now - (tonumber(as_of) or now)) / 1000)
end

-- Nobody needs to look after it any more: it has ended, and so have its jobs, or it is too long ago.
local function op_release(id, ended_ms)
  if call('EXISTS', P .. 'opj:' .. id) == 0 or now > ended_ms + OP_LOOKED_AFTER_MS then
    call('UNLINK', P .. 'opj:' .. id)
    call('ZREM', P .. 'ops', id)
  end
end

-- The end of one that is running. state: completed | stopped | cancelled.
local function op_end(id, state, why, who, reason)
  call('HSET', op_key(id), 'st', state, 'wy', why, 'en', NOW)
  call('PEXPIRE', op_key(id), OP_KEPT_MS)
  record_audit(who, 'operation.' .. state, id, reason, why)
  op_release(id, now)
end

-- Its state, if nobody has gone on from that place: compare and set.
local function op_at(id, cursor)
  local f = call('HMGET', op_key(id), 'st', 'cu')
  return f[2] == cursor and f[1]
end

-- Go on behind the place. counts: {field, n, ...}; is_end: nothing is left to do.
local function op_advance(id, cursor, spent, counts, is_end)
  local key = op_key(id)
  local f = call('HMGET', key, 'ra', 'tk', 'ta', 'by', 'rs', 'st')
  call('HSETNX', key, 'sa', NOW)
  call('HSET', key, 'cu', cursor, 'la', NOW, 'ta', NOW, 'tk', string.format('%.3f', op_tokens(f[1], f[2], f[3]) - spent))
  for i = 1, #counts, 2 do
    if counts[i + 1] ~= 0 then call('HINCRBY', key, counts[i], counts[i + 1]) end
  end
  if is_end and f[6] == 'running' then op_end(id, 'completed', '', f[4] or '', f[5] or '') end
end
