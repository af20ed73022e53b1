-- What keeps a job that waits from being claimed: asked of the same rules by which the fetch claims (lib/fetch, lib/fair, lib/limits).
--- @include "lib/fetch"

local WORD_OF = { gate = 'paused', breaker = 'breaker_open', rate = 'rate_limited', slots = 'concurrency_limited' }

-- job: its fields by name. Live plugin sets that have its type; who paused its queue and its type, JSON or false; limiters without room.
local function holds_of(job)
  local btype, refusals = band_type(job.ty, job.ls), {}
  local lane, limits, paused = lane_of(job.q, job.pr, btype, job.ln), rules_of(job.q, { btype })
  local band = { band = lane.band, limits = limits[1] or '', own = string.match(job.ln or '', '~.*') or '' }
  band.limiters = limiters_of(job.q, (some_paused and TENANTS .. ',' or '') .. (call('HGET', P .. 'q:' .. job.q, 'lm') or ''), band)
  needs_of(band, key_of(job.ln or '-'), refusals)
  return { prio = tonumber(job.pr) or NORMAL, lane = lane, caps = call('ZRANGEBYSCORE', P .. 'tc:' .. btype, '(' .. NOW, '+inf'),
    queue_pause = some_paused and call('HGET', P .. 'pause', 'q/' .. job.q), type_pause = paused[1], refusals = refusals }
end

-- The first of them in a word; '' when nothing holds it but its turn.
local function word_of(holds)
  if #holds.caps == 0 then return 'no_worker' end
  if holds.queue_pause or holds.type_pause then return 'paused' end
  return holds.refusals[1] and WORD_OF[holds.refusals[1][1].kind] or ''
end
