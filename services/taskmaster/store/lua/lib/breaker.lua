-- Health of dependencies: what the end of an attempt says of the breakers that it held (PROTOCOL.md, "Breakers"). A breaker is a limiter whose
-- name begins with `!`; jobs that hold none pay nothing.
--- @include "lib/release"
--- @include "lib/audit"

local BUCKETS = 10 -- of the window
local RETRIES_FREE = 10 -- retries a window that need no calls to be a share of
local DOWNS_FREE = 20 -- ends of one job that burn no attempt although its dependency is well for others
local RULES = { 'ratio', 'least', 'window', 'cooldown', 'growth', 'longest', 'first', 'full', 'share' }
local STATE = { 'state', 'till', 'probes', 'good', 'bad', 'opened', 'even', 'how', 'since' }
local breakers = {} -- by name, as this call leaves them

-- Whether what a job held names a breaker: found once a call for jobs that held alike.
local of_breakers = {}
local function names_breaker(held)
  if of_breakers[held] == nil then of_breakers[held] = string.find(held, '!', 1, true) ~= nil end
  return of_breakers[held]
end

-- Whether an attempt ran the fallback, its breaker being open: then it holds `!dependency?`, which is no limiter.
local function is_fallback(held)
  return names_breaker(held) and string.find(held, '?', 1, true) ~= nil
end

-- What the window holds: calls, those that failed, and the bucket of now.
local function read_window(b)
  b.at, b.calls, b.downs, b.cell = math.floor(now / math.max(1, b.window / BUCKETS)), 0, 0, { 0, 0 }
  for _, row in ipairs(call('HVALS', b.key .. ':c')) do
    local at, calls, downs = string.match(row, '^(%d+) (%d+) (%d+)$')
    if at and tonumber(at) > b.at - BUCKETS then
      b.calls, b.downs = b.calls + calls, b.downs + downs
      if tonumber(at) == b.at then b.cell = { tonumber(calls), tonumber(downs) } end
    end
  end
end

local function breaker(name)
  local b = breakers[name]
  if b == nil then
    local key = P .. 'L:' .. name
    local rules, state = call('HMGET', key, 'kind', unpack(RULES)), call('HMGET', key, unpack(STATE))
    b = rules[1] == 'breaker' and { name = name, key = key } or false
    if b then
      for i, field in ipairs(RULES) do b[field] = tonumber(rules[i + 1]) end
      for i, field in ipairs(STATE) do b[field] = tonumber(state[i] or nil) or state[i] or nil end
      b.state, b.good, b.bad, b.opened, b.probes = b.state or 'closed', b.good or 0, b.bad or 0, b.opened or 0, b.probes or b.first
      read_window(b)
    end
    breakers[name] = b
  end
  return b
end

local function forget_window(b)
  b.calls, b.downs, b.cell, b.is_new, b.is_changed = 0, 0, { 0, 0 }, true, true
end

-- No call until then; then a few at a time, more with each step that goes well.
local function open_until(b, till, how)
  if b.state == 'closed' then
    b.since = now
    record_audit('taskmaster', 'breaker.opened', string.sub(b.name, 2), how, b.downs .. ' of ' .. b.calls .. ' calls failed')
  end
  b.state, b.till, b.how, b.probes, b.good, b.bad = 'open', till, how, b.first, 0, 0
  forget_window(b)
end

local function trip(b)
  b.opened = b.opened + 1
  open_until(b, now + math.min(b.longest, math.floor(b.cooldown * b.growth ^ (b.opened - 1))), 'failures')
end

local function close_breaker(b)
  record_audit('taskmaster', 'breaker.closed', string.sub(b.name, 2), 'recovered', '')
  b.state, b.till, b.how, b.opened, b.since, b.probes, b.good, b.bad = 'closed', nil, nil, 0, now, b.first, 0, 0
  forget_window(b)
end

-- A step is over as soon as enough of its probes have failed, or when all have told.
local function probed(b, is_down)
  if is_down then b.bad = b.bad + 1 else b.good = b.good + 1 end
  b.is_changed = true
  if b.bad >= b.ratio * b.probes and b.bad > 0 then
    trip(b)
  elseif b.good + b.bad >= b.probes then
    if b.probes >= b.full then return close_breaker(b) end
    b.probes, b.good, b.bad = math.min(b.full, 2 * b.probes), 0, 0
  end
end

local function called(b, is_down)
  b.calls, b.cell[1], b.is_counted = b.calls + 1, b.cell[1] + 1, true
  if is_down then b.downs, b.cell[2] = b.downs + 1, b.cell[2] + 1 end
  if is_down and b.calls >= b.least and b.downs >= b.ratio * b.calls then trip(b) end
end

-- The end of an attempt, told to what it held. Calls that began before a breaker opened say nothing of its probing.
local function hear_end(key, held, outcome, reason, delay_ms)
  if not names_breaker(held) then return end
  local is_down = outcome == 'd' or (outcome == 'r' and reason == 'dependency_down')
  local says = is_down or outcome == 'c'
  local began = tonumber(call('HGET', key, 'sa'))
  for name in string.gmatch(held, '![^,]+') do
    local b = breaker(name)
    if b and outcome == 'l' then
      if b.state == 'closed' or b.till then open_until(b, math.max(b.till or 0, now + delay_ms), 'rate_limited') end
    elseif b and says and b.state == 'closed' then
      called(b, is_down)
    elseif b and says and b.till and b.till <= now and began >= b.till then
      probed(b, is_down)
    end
  end
end

-- Whether a job whose dependency is down may wait without burning an attempt: always while the breaker is open; else a number of times, since
-- it may be this job that the dependency cannot bear.
local function may_wait(key, held)
  for name in string.gmatch(held or '', '![^,]+') do
    local b = breaker(name)
    if b and b.state == 'open' then return true end
  end
  return call('HINCRBY', key, 'dd', 1) <= DOWNS_FREE
end

-- When a retry may go: at most a share of a dependency's calls are retries, and what is beyond it is spread out behind.
local function within_budget(held, due)
  local at = due
  for name in string.gmatch(held or '', '![^,]+') do
    local b = breaker(name)
    if b and b.state == 'closed' then
      b.even = math.max(b.even or 0, now - b.window) + b.window / math.max(RETRIES_FREE, b.share * b.calls)
      b.is_changed = true
      at = math.max(at, math.ceil(b.even))
    end
  end
  return at, at > due
end

local function write_state(b)
  local fields, gone = {}, {}
  for _, field in ipairs(STATE) do
    local value = b[field]
    if value then
      fields[#fields + 1], fields[#fields + 2] = field, type(value) == 'number' and string.format('%.0f', value) or value
    else
      gone[#gone + 1] = field
    end
  end
  call('HSET', b.key, unpack(fields))
  if #gone > 0 then call('HDEL', b.key, unpack(gone)) end
end

local function write_breakers()
  for _, b in pairs(breakers) do
    if b then
      if b.is_new then call('DEL', b.key .. ':c') end
      if b.is_counted and b.cell[1] > 0 then
        call('HSET', b.key .. ':c', b.at % BUCKETS, string.format('%.0f %d %d', b.at, b.cell[1], b.cell[2]))
        call('PEXPIRE', b.key .. ':c', b.window)
      end
      if b.is_changed then write_state(b) end
    end
  end
end
