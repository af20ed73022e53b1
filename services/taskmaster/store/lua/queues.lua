--[[ queues — depths and recent figures of one queue or all.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   queue ('' = all), how many of the last completed jobs to time, now ('' = server time)
OUT    a row a queue: [name, counts (waiting, delayed, active, completed, failed, cancelled, blocked), waiting by priority (critical .. low),
       age of the oldest that waits in ms or -1, ended in the last minute, completed and failed in the last hour,
       ms that the last ones waited, ms that they ran, types that wait and no live consumer has,
       bytes kept of ended jobs (completed, failed, cancelled)]
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

local only, timed = ARGV[1], tonumber(ARGV[2])
local MINUTE, HOUR = 60000, 3600000

local function describe(queue)
  local counts = call('HMGET', P .. 'n', queue .. '/w', queue .. '/d', queue .. '/a', queue .. '/c', queue .. '/f', queue .. '/x', queue .. '/b')
  for i = 1, 7 do counts[i] = tonumber(counts[i] or 0) end
  local bytes = call('HMGET', P .. 'n', queue .. '/c/bytes', queue .. '/f/bytes', queue .. '/x/bytes')
  for i = 1, 3 do bytes[i] = tonumber(bytes[i] or 0) end
  local levels, oldest, orphans = { 0, 0, 0, 0 }, nil, {}
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
    local lane, ty = P .. 'lane:' .. queue .. '/' .. band .. '/-', string.sub(band, 3)
    local size, level = call('ZCARD', lane), tonumber(string.sub(band, 1, 1)) + 1
    levels[level] = levels[level] + size
    local first = call('ZRANGE', lane, 0, 0)[1]
    if first then
      local since = tonumber(string.sub(first, 1, 8) .. string.sub(first, 10, 13), 16)
      since = math.max(since, tonumber(call('HGET', P .. 'j:' .. first, 'ra') or 0))
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
      local made = tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
      local started = tonumber(f[2]) or made
      waited[i] = math.max(0, started - math.max(made, tonumber(f[1]) or 0))
      ran[i] = math.max(0, (tonumber(f[3]) or started) - started)
    end
  end
  return { queue, counts, levels, oldest and math.max(0, now - oldest) or -1, minute,
    call('ZCOUNT', fin .. 'c', now - HOUR, '+inf'), call('ZCOUNT', fin .. 'f', now - HOUR, '+inf'), waited, ran, orphans,
    bytes }
end

local out = {}
if only ~= '' then
  if call('SISMEMBER', P .. 'qs', only) == 1 then out[1] = describe(only) end
else
  for i, queue in ipairs(call('SMEMBERS', P .. 'qs')) do out[i] = describe(queue) end
end
return out
