--[[ breakers — the breakers as they stand.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   dependency ('' = all), now ('' = server time)
OUT    a row a breaker: [dependency, fields (field, value, ...), calls in the window, those that failed, probes under way, units that wait,
       types that depend on it]
REPEAT reads only ]]
--- @include "lib/breaker"

local only = ARGV[1]
local NAMES_MAX = 1000

local names, out, types = only ~= '' and { '!' .. only } or call('SMEMBERS', P .. 'ls'), {}, {}
table.sort(names)
local limits = call('HGETALL', P .. 'tl')
for i = 1, #limits, 2 do
  for name in string.gmatch(limits[i + 1], '![^,?]+') do
    types[name] = types[name] or {}
    table.insert(types[name], limits[i])
  end
end
for _, name in ipairs(names) do
  local b = string.sub(name, 1, 1) == '!' and #out < NAMES_MAX and breaker(name)
  if b then
    out[#out + 1] = { string.sub(name, 2), call('HGETALL', b.key), b.calls, b.downs, call('ZCARD', b.key .. ':s'), call('ZCARD', b.key .. ':w'),
      types[name] or {} }
  end
end
return out
