-- Limiters: named bounds on claims, shared by all workers (PROTOCOL.md, "Limiters"). A call sees each as it stood when first asked, less
-- what the call itself took.
--- @include "lib/batch"
--- @include "lib/release"

local limiters = {} -- by name and fairness key, as far as it counts
local SLIDING_MAX = 10000 -- above it, claim times are not kept one by one
local RATE_KEPT_MS = 60000 -- beyond the time in which they count
local TENANTS = '=tenant' -- the gate by key that every job passes while anything is paused: shut for tenants that are

-- A limiter for the jobs of one fairness key: {room: how many more may be claimed now, next: ms from which there is room again by itself,
-- nil if somebody has to give back}. One that is by key has an instance for each, `<name>@<key>`. nil: there is none, so it limits nothing.
local function limiter(name, key)
  local rule = limiters[name]
  if rule == nil and name == TENANTS then
    rule = { kind = 'gate', by_key = true, instances = {} }
    limiters[name] = rule
  elseif rule == nil then
    local f = call('HMGET', P .. 'L:' .. name, 'kind', 'max', 'per', 'burst', 'by', 'state', 'till', 'probes')
    rule = f[1] and { kind = f[1], max = tonumber(f[2]), per = tonumber(f[3]), burst = tonumber(f[4] or nil), by_key = f[5] == 'key',
      state = f[6] or 'closed', till = tonumber(f[7] or nil), probes = tonumber(f[8] or 1), instances = {} } or false
    limiters[name] = rule
  end
  if not rule then return nil end
  local instance = rule.by_key and name .. '@' .. key or name
  local l = rule.instances[instance]
  if l then return l end
  l = { instance = instance, name = name, kind = rule.kind, max = rule.max, per = rule.per, burst = rule.burst, key = P .. 'L:' .. instance, took = 0, slots = P .. 'L:' .. instance .. ':s',
    is_by_key = rule.by_key }
  rule.instances[instance] = l
  if rule.by_key and l.max then l.max = tonumber(call('HGET', P .. 'L:' .. name, 'max/' .. key) or nil) or l.max end
  if l.kind == 'slots' then
    l.room, l.is_held = l.max - call('ZCARD', l.slots), true
  elseif l.kind == 'rate' and (l.burst or l.max > SLIDING_MAX) then
    local b = call('HMGET', l.key .. ':b', 'tokens', 'at')
    l.burst = l.burst or l.max
    l.tokens = math.min(l.burst, (tonumber(b[1] or nil) or l.burst) + math.max(0, now - (tonumber(b[2] or nil) or now)) * l.max / l.per)
    l.room = math.floor(l.tokens)
  elseif l.kind == 'rate' then
    local since = '(' .. (now - l.per)
    local n = call('ZCOUNT', l.key .. ':t', since, '+inf')
    local first = n > 0 and call('ZRANGEBYSCORE', l.key .. ':t', since, '+inf', 'WITHSCORES', 'LIMIT', math.max(0, n - l.max), 1)
    l.room, l.next = l.max - n, (first and tonumber(first[2]) or now) + l.per
  elseif l.kind == 'gate' then
    l.room = name == TENANTS and call('HEXISTS', P .. 'pause', 'k/' .. key) == 0 and math.huge or 0
  else -- a breaker: closed lets all through, open none until it is time to probe, then a few at a time; open without a time: by order
    local is_probing = rule.state == 'open' and rule.till and rule.till <= now
    l.is_held, l.is_probing = true, is_probing
    l.room = rule.state == 'closed' and math.huge or is_probing and rule.probes - call('ZCARD', l.slots) or 0
    if not is_probing then l.next = rule.till end
  end
  return l
end

-- One claim more.
local function take(l, id, epoch)
  l.room, l.took = l.room - 1, l.took + 1
  if l.kind == 'slots' or l.is_probing then
    add(l.slots, epoch, id)
  elseif l.kind == 'rate' and not l.tokens then
    add(l.key .. ':t', NOW, epoch .. '/' .. id)
  end
end

-- When there is room by itself, now that this call has taken; nil: when somebody gives back.
local function room_from(l)
  if not l.tokens then return l.next end
  return now + math.max(1, math.ceil((1 - (l.tokens - l.took)) * l.per / l.max))
end

-- What rates remember of this call's claims.
local function write_rates()
  for _, rule in pairs(limiters) do
    for _, l in pairs(rule and rule.kind == 'rate' and rule.instances or {}) do
      if l.took > 0 then
        if l.tokens then -- rounded down, so that what is left out never adds up to a claim
          call('HSET', l.key .. ':b', 'tokens', string.format('%.6f', math.floor((l.tokens - l.took) * 1e6) / 1e6), 'at', NOW)
          call('PEXPIRE', l.key .. ':b', math.ceil(l.per * l.burst / l.max) + RATE_KEPT_MS)
        else
          call('ZREMRANGEBYSCORE', l.key .. ':t', '-inf', now - l.per)
          call('PEXPIRE', l.key .. ':t', l.per + RATE_KEPT_MS)
        end
      end
    end
  end
end
