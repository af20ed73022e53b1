--[[ group — what is known of groups of dead letters.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   fingerprints (MessagePack list, at most 20), now ('' = server time)
OUT    a row for each that has records: [fingerprint, how many, ms of the first failure, of the last, failure of the newest,
       the newest ten and the oldest two, a row each: (id, type, queue, reason, plugin==version or '')]
REPEAT reads only ]]
--- @include "lib/tag"

local prints = cmsgpack.unpack(ARGV[1])
local NEWEST, OLDEST = 10, 2

-- The failure is JSON: class, message, fingerprint, trace, plugin.
local function plugin_of(failure)
  return string.match(failure or '', ',"([^"\\]+==[^"\\]+)"%]$') or ''
end

local out = {}
for _, print in ipairs(prints) do
  local key = P .. 'fp:' .. print
  local n = call('ZCARD', key)
  if n > 0 then
    local ids, sample, failure = call('ZREVRANGE', key, 0, NEWEST - 1), {}, nil
    local rest = math.min(OLDEST, n - #ids)
    for i = rest, 1, -1 do ids[#ids + 1] = call('ZRANGE', key, i - 1, i - 1)[1] end
    for _, id in ipairs(ids) do
      local f = call('HMGET', P .. 'd:' .. id, 'ty', 'q', 'rs', 'er')
      if f[1] then
        failure = failure or f[4] or ''
        sample[#sample + 1] = { id, f[1], f[2] or '', f[3] or '', plugin_of(f[4]) }
      end
    end
    local first, last = call('ZRANGE', key, 0, 0, 'WITHSCORES')[2], call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
    if #sample > 0 then out[#out + 1] = { print, n, first, last, failure, sample } end
  end
end
return out
