-- Writes of many jobs, gathered so that each key is written once a call.
--- @include "lib/tag"
--- @include "lib/now"

local CHUNK = 4000 -- values for one unpack(): Lua's C stack holds about 8,000
local EVENTS_KEPT, CALLS_KEPT = 10000, 4000 -- about so many transitions are remembered, of at most so many script calls

-- Lists carry their length in `n`: `#` would search for it every time.
local adds, rems, counts, story, told = {}, {}, {}, {}, 0
local more = 0 -- 1: a bound cut the work off, call again

local function spread(command, key, values)
  for first = 1, values.n, CHUNK do
    call(command, key, unpack(values, first, math.min(first + CHUNK - 1, values.n)))
  end
end

local function add(key, score, member)
  local t = adds[key]
  if not t then
    t = { n = 0 }
    adds[key] = t
  end
  local n = t.n
  t[n + 1], t[n + 2], t.n = score, member, n + 2
end

local function rem(key, member)
  local t = rems[key]
  if not t then
    t = { n = 0 }
    rems[key] = t
  end
  local n = t.n + 1
  t[n], t.n = member, n
end

local function count(field, by)
  counts[field] = (counts[field] or 0) + by
end

-- Codes: s submitted, d delayed by a change, a claimed, c completed, r retrying, f failed, x cancelled, l lost, h handed back, p promoted, g purged, m mended, n news: progress or lines.
local function tell(code, id)
  story[told + 1], story[told + 2] = code, id
  told = told + 2
end

-- Between two phases of a script: the next one reads what this one wrote.
local function write_indexes()
  for key, members in pairs(rems) do spread('ZREM', key, members) end
  for key, pairs_of in pairs(adds) do spread('ZADD', key, pairs_of) end
  adds, rems = {}, {}
end

local function write_rest()
  for field, by in pairs(counts) do
    if by ~= 0 then call('HINCRBY', P .. 'n', field, by) end
  end
  if told > 0 then
    local calls = math.min(CALLS_KEPT, math.ceil(EVENTS_KEPT / told))
    call('XADD', P .. 'ev', 'MAXLEN', '~', calls, '*', 'e', table.concat(story))
  end
end

-- The n members with the lowest scores leave a sorted set. Cheaper than ZPOPMIN, which puts every score into words.
local function take_oldest(key, n)
  local taken = call('ZRANGE', key, 0, n - 1)
  if #taken > 0 then call('ZREMRANGEBYRANK', key, 0, #taken - 1) end
  return taken
end
