--[[ find — one page of jobs or dead-letter records, newest first, from one kind of index, filtered.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   index (created | tagged | finished | waiting | delayed | active | dead), state (its letter, '' = any; needed by finished), type ('' = any), queue ('' = any),
       filter of dead letters (JSON, lib/letters; '' for all else),
       filter of jobs (MessagePack map of those wanted: tg tag, needed by tagged; pr priority 0-3; key fairness key as lanes spell it; by ids of consumers, one of
       which runs it; since lowest score; from, to: times that ids carry),
       score of the row before the page, its member (both '' = from the beginning), rows at most, now ('' = server time)
OUT    1 when there may be more, score and member of the last one looked at ('' when none was), then a row each: [id, score, field, value, ...]
REPEAT reads only ]]
--- @include "lib/walk"
--- @include "lib/letters"
--- @include "lib/bands"

local index, state, ty, queue, filter, jobs = ARGV[1], ARGV[2], ARGV[3], ARGV[4], letter_filter(ARGV[5]), cmsgpack.unpack(ARGV[6])
local c_score, c_member, limit = ARGV[7], ARGV[8], tonumber(ARGV[9])
local BYTES = 1000000 -- what one call may cost; a page that is cut short says so
local LANES = 500 -- so many are merged by arrival
local CREATED = 1e12 -- scores above are times, below arrivals
local ACTIVE = 5000 -- active jobs have no index by age: that many are sorted
local most = (filter.text or filter.version) and 250 or 1000 -- rows that are looked at; fewer where whole errors are read

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

local keys, runners = {}, {}
for _, wid in ipairs(jobs.by or {}) do runners[wid] = true end

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
elseif index == 'tagged' then
  keys[1] = P .. 'ig:' .. jobs.tg
elseif index == 'finished' then
  for i, name in ipairs(queues()) do keys[i] = P .. 'fin:' .. name .. '/' .. state end
elseif index == 'dead' then
  keys = letter_indexes(filter)
elseif index == 'delayed' then
  keys[1] = P .. 'delayed'
end

local sources
if index == 'active' then
  local ids, rows = call('ZRANGE', P .. 'active', 0, ACTIVE - 1), {}
  table.sort(ids, function(a, b) return a > b end)
  for _, id in ipairs(ids) do
    if c_member == '' or id < c_member then
      rows[#rows + 1] = id
      rows[#rows + 1] = '0'
    end
  end
  sources = { { rows = rows, at = 1 } }
else
  sources = sources_of(keys, c_score, c_member, true)
end

local function is_wanted(id)
  if index == 'dead' then return is_meant(id, filter) end
  local f = call('HMGET', P .. 'j:' .. id, 'st', 'ty', 'q', 'pr', 'ln', 'tg', 'tk')
  if not f[2] or (state ~= '' and f[1] ~= state) or (ty ~= '' and f[2] ~= ty) or (queue ~= '' and f[3] ~= queue) then return false end
  if jobs.pr and (tonumber(f[4] or nil) or 2) ~= jobs.pr then return false end
  if jobs.key and string.match(f[5] or '', '^[^~]*') ~= jobs.key then return false end
  if jobs.from or jobs.to then -- when a job was made is what its id says; the index has when it was stored
    local made = tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
    if made < (jobs.from or 0) or made >= (jobs.to or math.huge) then return false end
  end
  if jobs.by and not runners[string.match(f[7] or '', '^[^.]*')] then return false end
  return not jobs.tg or string.find(',' .. (f[6] or '') .. ',', ',' .. jobs.tg .. ',', 1, true)
end

local record = index == 'dead' and 'd:' or 'j:'
local oldest = tonumber(filter.after or jobs.since) or -math.huge
local next_one = walk(sources, math.max(4, math.min(limit + 1, math.floor(400 / math.max(1, #keys)))), true)
local out, looked, bytes = { 0, '', '' }, 0, 0
local score, member = next_one(true)
while score and tonumber(score) >= oldest do
  out[2], out[3], looked = score, member, looked + 1
  if is_wanted(member) then
    local row = call('HGETALL', P .. record .. member)
    for i = 1, #row do bytes = bytes + #row[i] end
    table.insert(row, 1, score)
    table.insert(row, 1, member)
    out[#out + 1] = row
  end
  if #out - 3 == limit or looked == most or bytes >= BYTES then
    score = next_one()
    if score and tonumber(score) >= oldest then out[1] = 1 end
    break
  end
  score, member = next_one(true)
end
return out
