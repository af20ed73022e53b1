-- Counters held against what they count.
--- @include "lib/examine"

local RECOUNTED = 20000 -- members that one call reads to count them anew
local ALWAYS_RECOUNTED = 2000 -- so many are read although the sum over all queues fits: one queue's error may be the other's
local LANES_RECOUNTED = 5000 -- lanes of a queue: with more, its waiting jobs are not counted anew

local function set_count(field, should)
  local is = tonumber(call('HGET', P .. 'n', field) or 0) or 0
  if is == should or refused[P .. 'n'] then return end
  call('HSET', P .. 'n', field, should)
  report('counter', field, is .. ' -> ' .. should, true)
end

-- How many members of an index belong to each queue; nil: too many to count in one call.
local function by_queue(key)
  if call('ZCARD', key) > RECOUNTED then return nil end
  local of = {}
  for _, id in ipairs(call('ZRANGE', key, 0, -1)) do
    local queue = call('HGET', P .. 'j:' .. id, 'q')
    if queue then of[queue] = (of[queue] or 0) + 1 end
  end
  return of
end

-- Waiting and ended jobs have indexes of their queue.
local function recount_queue(queue)
  local waiting, lanes_left = 0, LANES_RECOUNTED
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
    local plain, own, star = parts_of(band)
    local names = star == '' and { '-' } or call('ZRANGE', P .. 'ring:' .. queue .. '/' .. plain .. own, 0, math.max(0, lanes_left))
    lanes_left = lanes_left - #names
    for i = 1, lanes_left < 0 and 0 or #names do waiting = waiting + call('ZCARD', P .. 'lane:' .. queue .. '/' .. plain .. '/' .. names[i]) end
  end
  if lanes_left >= 0 then set_count(queue .. '/w', waiting) end
  for _, state in ipairs({ 'c', 'f', 'x' }) do set_count(queue .. '/' .. state, call('ZCARD', P .. 'fin:' .. queue .. '/' .. state)) end
end

-- Bytes of the ended jobs of one index; how many rows that took.
local BYTES_RECOUNTED = 10000
local function recount_bytes(queue, state)
  local index, field = P .. 'fin:' .. queue .. '/' .. state, queue .. '/' .. state .. '/bytes'
  local size = call('ZCARD', index)
  if size > BYTES_RECOUNTED or refused[index] then return 0 end
  local sum = 0
  for _, id in ipairs(call('ZRANGE', index, 0, -1)) do
    local f = call('HMGET', P .. 'j:' .. id, 'sz', 'rz')
    sum = sum + (tonumber(f[1]) or 0) + (tonumber(f[2]) or 0)
  end
  set_count(field, sum)
  return size
end

-- Whether an index that several queues share is to be counted by queue.
local function is_doubtful(sum, size)
  return sum ~= size or size <= ALWAYS_RECOUNTED
end

-- Delayed and active jobs of all queues share an index each. Answers how many rows that took.
local function recount_shared(name, state, queues)
  local sum = 0
  for _, queue in ipairs(queues) do sum = sum + (tonumber(call('HGET', P .. 'n', queue .. '/' .. state) or 0) or 0) end
  local size = call('ZCARD', P .. name)
  if not is_doubtful(sum, size) then return 0 end
  local of = by_queue(P .. name)
  if not of then
    report('counter', name, sum .. ' counted, ' .. size .. ' there', false)
    return 0
  end
  for _, queue in ipairs(queues) do set_count(queue .. '/' .. state, of[queue] or 0) end
  return size
end

-- created = present + purged. A job that vanished otherwise counts as purged. Answers how many rows that took.
local function recount_type(ty, fields)
  local sum = 0
  for queue, f in pairs(fields) do sum = sum + f.created - f.purged end
  local key = P .. 'it:' .. ty
  local size = call('ZCARD', key)
  if refused[key] or not is_doubtful(sum, size) then return 0 end
  local of = by_queue(key)
  if not of then
    report('counter', ty, sum .. ' counted, ' .. size .. ' there', false)
    return 0
  end
  for queue in pairs(of) do fields[queue] = fields[queue] or { created = 0, purged = 0 } end
  for queue, f in pairs(fields) do
    local present = of[queue] or 0
    local pair = ty .. '/' .. queue
    if f.created - f.purged > present then
      set_count(pair .. '/purged', f.created - present)
    elseif f.created - f.purged < present then
      set_count(pair .. '/created', present + f.purged)
    end
  end
  return size
end
