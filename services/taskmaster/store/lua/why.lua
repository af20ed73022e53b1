--[[ why — everything that keeps one job from running, as the fetch sees it, and where it stands.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, now ('' = server time)
OUT    [] when there is no such job, else [now ms, fields (field, value, ...), catalogue entry of its type as JSON,
       pause of its queue, of its type (JSON or ''), limiters without room (rows of [instance, kind, unit that waits, in use, ms until there is
       room by itself or -1, fields; of a tenant that is paused `pause`, JSON]), consumers with its type (id, who it is as JSON, 1 when it sleeps with room in this queue, ...),
       jobs of the queue that run, that ended in the last minute, lease expiry or 0,
       place (rank in its lane, jobs in its lane, lanes that take turns, jobs of its level that came earlier, jobs of higher levels, 1 when not all lanes were counted)]
REPEAT reads only ]]
--- @include "lib/hold"

local id = ARGV[1]
local CONSUMERS, LANES, MINUTE = 200, 200, 60000

local fields = call('HGETALL', P .. 'j:' .. id)
if #fields == 0 then return {} end
local job = {}
for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end

local holds = (job.st == 'w' or job.st == 'd') and holds_of(job) or { caps = {}, refusals = {} }

local refusals = {}
for i, refusal in ipairs(holds.refusals) do
  local l, unit = refusal[1], refusal[2]
  local from = room_from(l)
  local in_use = l.kind == 'breaker' and call('ZCARD', l.key .. ':s') or l.max and l.max - l.room or 0
  local its = l.name == TENANTS and { 'pause', call('HGET', P .. 'pause', 'k/' .. key_of(job.ln)) } or call('HGETALL', P .. 'L:' .. l.name)
  refusals[i] = { l.instance, l.kind, unit, in_use, from and math.max(1, from - now) or -1, its }
end

-- Who could run it: an attempt's own consumer, or all that have the type.
local consumers, has = {}, {}
for _, cap in ipairs(holds.caps) do has[cap] = true end
local function introduce(wid)
  local f = call('HMGET', P .. 'w:' .. wid, 'cap', 'info')
  local n = #consumers
  if job.st == 'a' or has[f[1]] then
    local sleeps = f[1] and call('ZSCORE', P .. 'idle:' .. job.q .. '/' .. f[1], wid)
    consumers[n + 1], consumers[n + 2], consumers[n + 3] = wid, f[2] or call('GET', P .. 'o:' .. wid) or '', sleeps and 1 or 0
  end
end
if job.st == 'a' then
  introduce(owner(job.tk))
elseif #holds.caps > 0 then
  for _, wid in ipairs(call('ZREVRANGEBYSCORE', P .. 'ws', '+inf', '(' .. NOW, 'LIMIT', 0, CONSUMERS)) do introduce(wid) end
end

-- Where it stands among those that wait in its queue.
local looked, earlier, higher, is_cut = 0, 0, 0, 0
local function count_lane(lane, is_same, score)
  looked = looked + 1
  if is_same then
    earlier = earlier + call('ZCOUNT', lane, '-inf', '(' .. score)
  else
    higher = higher + call('ZCARD', lane)
  end
end

local function place()
  local lane = holds.lane
  local score = call('ZSCORE', lane.key, id)
  if not score then return {} end
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. job.q)) do
    local p = tonumber(string.sub(band, 1, 1))
    if p <= holds.prio and looked < LANES then
      local plain, own, is_ring = parts_of(band)
      if is_ring == '*' then
        plain = job.q .. '/' .. plain
        local names = call('ZRANGE', P .. 'ring:' .. plain .. own, 0, LANES - looked)
        if #names > LANES - looked then is_cut = 1 end
        for i = 1, math.min(#names, LANES - looked) do count_lane(P .. 'lane:' .. plain .. '/' .. names[i], p == holds.prio, score) end
      else
        count_lane(P .. 'lane:' .. job.q .. '/' .. band .. '/-', p == holds.prio, score)
      end
    elseif p <= holds.prio then
      is_cut = 1
    end
  end
  local lanes = lane.ring and call('ZCOUNT', lane.ring, '-inf', '(+inf') or 1
  return { call('ZRANK', lane.key, id), call('ZCARD', lane.key), lanes, earlier, higher, is_cut }
end

local ended = 0
for _, state in ipairs({ 'c', 'f', 'x' }) do ended = ended + call('ZCOUNT', P .. 'fin:' .. job.q .. '/' .. state, now - MINUTE, '+inf') end
return { now, fields, call('HGET', P .. 'cat', job.ty) or '', holds.queue_pause or '', holds.type_pause or '', refusals, consumers,
  tonumber(call('HGET', P .. 'n', job.q .. '/a') or 0), ended, tonumber(job.st == 'a' and call('ZSCORE', P .. 'active', id) or 0),
  job.st == 'w' and place() or {} }
