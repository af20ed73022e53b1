--[[ pressure — how long the queues are, and how old what waits in them.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   with ages ('1' or ''), now ('' = server time)
OUT    [queue, jobs that wait, ms that the oldest of them has been waiting (of lanes that take turns the first 20 are looked at; -1: not looked at, or
       none waits), ...]
REPEAT reads only ]]
--- @include "lib/bands"
--- @include "lib/now"

local with_age = ARGV[1] == '1'
local LANES = 20

local function age_of(lane)
  local first = call('ZRANGE', lane, 0, 0)[1]
  if not first then return -1 end
  local made = tonumber(string.sub(first, 1, 8) .. string.sub(first, 10, 13), 16)
  return math.max(0, now - math.max(made, tonumber(call('HGET', P .. 'j:' .. first, 'ra') or 0)))
end

local function oldest_of(queue)
  local oldest = -1
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
    local plain, own, is_ring = parts_of(band)
    if is_ring == '*' then
      plain = queue .. '/' .. plain
      for _, name in ipairs(call('ZRANGE', P .. 'ring:' .. plain .. own, 0, LANES - 1)) do
        oldest = math.max(oldest, age_of(P .. 'lane:' .. plain .. '/' .. name))
      end
    else
      oldest = math.max(oldest, age_of(P .. 'lane:' .. queue .. '/' .. band .. '/-'))
    end
  end
  return oldest
end

local out, n = {}, 0
for _, queue in ipairs(call('SMEMBERS', P .. 'qs')) do
  out[n + 1], out[n + 2], out[n + 3] = queue, tonumber(call('HGET', P .. 'n', queue .. '/w') or 0), with_age and oldest_of(queue) or -1
  n = n + 3
end
return out
