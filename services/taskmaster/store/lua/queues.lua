--[[ queues — depths and recent figures of one queue or all.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   queue ('' = all), how many of the last completed jobs to time, now ('' = server time)
OUT    a row a queue: [name, counts (waiting, delayed, active, completed, failed, cancelled, blocked), waiting by priority
       (critical .. low; an estimate where a band has more than 200 lanes), age of the oldest that waits in ms or -1, ended in the last minute, completed and failed in the last hour,
       ms that the last ones waited, ms that they ran, types that wait and no live consumer has]
REPEAT reads only ]]
--- @include "lib/bands"
--- @include "lib/now"

local only, timed = ARGV[1], tonumber(ARGV[2])
local MINUTE, HOUR = 60000, 3600000
local LANES = 100 -- of a ring, looked at from either end

local function id_ms(id)
  return tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
end

-- How many jobs a band has, and since when the first of them waits. Of a ring with more lanes than are looked at, the size is an estimate, and
-- the oldest is that of the lanes whose turn is next and of those that wait for a limiter.
local function measure(queue, band)
  local plain, own, star = parts_of(band)
  local lane, names, n = P .. 'lane:' .. queue .. '/' .. plain .. '/', { '-' }, 1
  if star ~= '' then
    local ring = P .. 'ring:' .. queue .. '/' .. plain .. own
    n = call('ZCARD', ring)
    names = call('ZRANGE', ring, 0, n <= 2 * LANES and -1 or LANES - 1)
    if n > 2 * LANES then
      for _, name in ipairs(call('ZREVRANGE', ring, 0, LANES - 1)) do names[#names + 1] = name end
    end
  end
  local size, oldest = 0, nil
  for _, name in ipairs(names) do
    size = size + call('ZCARD', lane .. name)
    local first = call('ZRANGE', lane .. name, 0, 0)[1]
    if first then
      local since = math.max(id_ms(first), tonumber(call('HGET', P .. 'j:' .. first, 'ra') or 0))
      if not oldest or since < oldest then oldest = since end
    end
  end
  if n > #names then size = math.floor(size * n / #names + 0.5) end
  return size, oldest, string.sub(plain, 3)
end

local function describe(queue)
  local counts = call('HMGET', P .. 'n', queue .. '/w', queue .. '/d', queue .. '/a', queue .. '/c', queue .. '/f', queue .. '/x', queue .. '/b')
  for i = 1, 7 do counts[i] = tonumber(counts[i] or 0) end
  local levels, oldest, orphans = { 0, 0, 0, 0 }, nil, {}
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
    local size, since, ty = measure(queue, band)
    local level = tonumber(string.sub(band, 1, 1)) + 1
    levels[level] = levels[level] + size
    if since then
      if not oldest or since < oldest then oldest = since end
      if call('ZCOUNT', P .. 'tc:' .. ty, '(' .. NOW, '+inf') == 0 then orphans[#orphans + 1] = string.gsub(ty, '!$', '') end
    end
  end
  local fin = P .. 'fin:' .. queue .. '/'
  local minute = 0
  for _, state in ipairs({ 'c', 'f', 'x' }) do minute = minute + call('ZCOUNT', fin .. state, now - MINUTE, '+inf') end
  local waited, ran = {}, {}
  if timed > 0 then
    for i, id in ipairs(call('ZREVRANGE', fin .. 'c', 0, timed - 1)) do
      local f = call('HMGET', P .. 'j:' .. id, 'ra', 'sa', 'fa')
      local made = id_ms(id)
      local started = tonumber(f[2]) or made
      waited[i] = math.max(0, started - math.max(made, tonumber(f[1]) or 0))
      ran[i] = math.max(0, (tonumber(f[3]) or started) - started)
    end
  end
  return { queue, counts, levels, oldest and math.max(0, now - oldest) or -1, minute,
    call('ZCOUNT', fin .. 'c', now - HOUR, '+inf'), call('ZCOUNT', fin .. 'f', now - HOUR, '+inf'), waited, ran, orphans }
end

local out = {}
if only ~= '' then
  if call('SISMEMBER', P .. 'qs', only) == 1 then out[1] = describe(only) end
else
  for i, queue in ipairs(call('SMEMBERS', P .. 'qs')) do out[i] = describe(queue) end
end
return out
