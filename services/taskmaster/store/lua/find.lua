--[[ find — one page of jobs or dead-letter records, newest first, from one kind of index, filtered.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   index (created | finished | waiting | delayed | active | dead), state (its letter, '' = any; needed by finished), type ('' = any), queue ('' = any),
       score of the row before the page, its member (both '' = from the beginning), rows at most, now ('' = server time)
OUT    1 when there may be more, score and member of the last one looked at ('' when none was), then a row each: [id, score, field, value, ...]
REPEAT reads only ]]
--- @include "lib/bands"

local index, state, ty, queue = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local c_score, c_member, limit = ARGV[5], ARGV[6], tonumber(ARGV[7])
local LOOKED_AT, BYTES = 1000, 1000000 -- what one call may cost; a page that is cut short says so
local LANES = 500 -- so many are merged by arrival
local CREATED = 1e12 -- scores above are times, below arrivals
local ACTIVE = 5000 -- active jobs have no index by age: that many are sorted

local function queues()
  return queue ~= '' and { queue } or call('SMEMBERS', P .. 'qs')
end

local function types()
  if ty ~= '' then return { ty } end
  local seen, out = {}, {}
  for _, field in ipairs(call('HKEYS', P .. 'n')) do
    local name = string.match(field, '^([^/]+)/[^/]+/created$')
    if name and not seen[name] then
      seen[name] = true
      out[#out + 1] = name
    end
  end
  return out
end

-- How many members of the index come before the page: those with a greater score, and with the same score and not a smaller member.
local function rank_after_cursor(key)
  if c_score == '' then return 0 end
  local rank = call('ZREVRANK', key, c_member)
  if rank and call('ZSCORE', key, c_member) == c_score then return rank + 1 end
  local low = call('ZCOUNT', key, '(' .. c_score, '+inf')
  local high = low + call('ZCOUNT', key, c_score, c_score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if call('ZREVRANGE', key, middle, middle)[1] >= c_member then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local keys = {}

-- The lanes of waiting jobs; nil when there are too many.
local function lanes()
  local out = {}
  for _, name in ipairs(queues()) do
    for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. name)) do
      local plain, own, star = parts_of(band)
      local its = string.sub(plain, 3)
      if ty == '' or its == ty or its == ty .. '!' then
        local lane = P .. 'lane:' .. name .. '/' .. plain .. '/'
        local names = star == '' and { '-' } or call('ZRANGE', P .. 'ring:' .. name .. '/' .. plain .. own, 0, LANES)
        if #out + #names > LANES then return nil end
        for _, its_name in ipairs(names) do out[#out + 1] = lane .. its_name end
      end
    end
  end
  return out
end

-- Waiting jobs in too many lanes, as with 100,000 fairness keys, are found among all by creation, as is what comes behind such a page.
if index == 'waiting' then
  local of_time = c_score ~= '' and tonumber(c_score) >= CREATED
  local found = not of_time and lanes()
  if found then
    keys = found
  else
    index, state = 'created', 'w'
    if c_score ~= '' and not of_time then c_score = tostring(tonumber(string.sub(c_member, 1, 8) .. string.sub(c_member, 10, 13), 16)) end
  end
end
if index == 'created' then
  for i, name in ipairs(types()) do keys[i] = P .. 'it:' .. name end
elseif index == 'finished' then
  for i, name in ipairs(queues()) do keys[i] = P .. 'fin:' .. name .. '/' .. state end
elseif index == 'dead' then
  for i, name in ipairs(queues()) do keys[i] = P .. 'dlq:' .. name end
elseif index == 'delayed' then
  keys[1] = P .. 'delayed'
end

local BATCH = math.max(4, math.min(limit + 1, math.floor(400 / math.max(1, #keys))))
local sources = {}
if index == 'active' then
  local ids, rows = call('ZRANGE', P .. 'active', 0, ACTIVE - 1), {}
  table.sort(ids, function(a, b) return a > b end)
  for _, id in ipairs(ids) do
    if c_member == '' or id < c_member then
      rows[#rows + 1] = id
      rows[#rows + 1] = '0'
    end
  end
  sources[1] = { rows = rows, at = 1 }
else
  for i, key in ipairs(keys) do sources[i] = { key = key, rank = rank_after_cursor(key), rows = {}, at = 1 } end
end

-- The next member of a source and its score; nil at its end.
local function head(source)
  if source.at > #source.rows and source.key then
    source.rows, source.at = call('ZREVRANGE', source.key, source.rank, source.rank + BATCH - 1, 'WITHSCORES'), 1
    source.rank = source.rank + #source.rows / 2
    if #source.rows == 0 then source.key = nil end
  end
  return source.rows[source.at], source.rows[source.at + 1]
end

local function newest()
  local best, best_member, best_score
  for _, source in ipairs(sources) do
    local member, score = head(source)
    if member then
      local newer = not best or tonumber(score) > tonumber(best_score)
      if newer or (tonumber(score) == tonumber(best_score) and member > best_member) then best, best_member, best_score = source, member, score end
    end
  end
  return best, best_member, best_score
end

local record = index == 'dead' and 'd:' or 'j:'
local out, looked, bytes, member, score = { 0, '', '' }, 0, 0, nil, nil
while #out - 3 < limit and looked < LOOKED_AT and bytes < BYTES do
  local source
  source, member, score = newest()
  if not source then break end
  source.at, looked = source.at + 2, looked + 1
  out[2], out[3] = score, member
  local f = call('HMGET', P .. record .. member, 'st', 'ty', 'q')
  if f[2] and (state == '' or index == 'dead' or f[1] == state) and (ty == '' or f[2] == ty) and (queue == '' or f[3] == queue) then
    local row = call('HGETALL', P .. record .. member)
    for i = 1, #row do bytes = bytes + #row[i] end
    table.insert(row, 1, score)
    table.insert(row, 1, member)
    out[#out + 1] = row
  end
end
if newest() then out[1] = 1 end
return out
