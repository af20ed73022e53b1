--[[ sweep — one page of the comparison of indexes with records, both ways; what does not fit is put right and reported.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   begin ('' = when it is due | 'now'; one that is under way goes on), ms from one end to the next begin, key window ms, now ('' = server time)
OUT    [] nothing is due | [1 when that was the last page, repairs as JSON rows ...]
REPEAT looks at the next page: every item is read again in the call that repairs it ]]
--- @include "lib/careful"
--- @include "lib/kinds"
--- @include "lib/recount"
--- @include "lib/examine_flow"

local begin, every_ms, window = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local LOOKED_AT, KEYS_A_CALL, REPORTED = 40, 100, 200
local LANES_WALKED = 2000 -- lanes with names; of more, it is seen from their jobs that these stand in them

local sweep = call('HMGET', P .. 'sweep', 'at', 'due', 'since', 'looked', 'mended', 'found')
local is_under_way = sweep[1] and sweep[1] ~= ''
if not is_under_way and begin == '' and (tonumber(sweep[2]) or 0) > now then return {} end
local at = is_under_way and cjson.decode(sweep[1]) or { 1, '', '', '' }
local stage, name, score, member = at[1], at[2], at[3], at[4]
local since = is_under_way and tonumber(sweep[3]) or now
local looked = is_under_way and tonumber(sweep[4]) or 0
local mended_before, found_before = is_under_way and tonumber(sweep[5]) or 0, is_under_way and tonumber(sweep[6]) or 0

-- ---------------------------------------------------------------- what there is to walk
-- Not walked, but told if they are foreign.
for _, name in ipairs({ 'meta', 'ws', 'keeper', 'maint', 'ev', 'swept', 'audit', 'chain', 'pause', 'orders', 'tl', 'ob', 'obd' }) do
  local foreign = foreign_type(name)
  if foreign then
    refused[P .. name] = foreign
    refusals[#refusals + 1] = P .. name
  end
end
local queues = call('SMEMBERS', P .. 'qs')

-- Type -> queue -> {created, purged}: read anew for each stage, since rows of indexes bring types to light.
local pairs_of
local function read_types()
  pairs_of = {}
  for _, ty in ipairs(call('HKEYS', P .. 'cat')) do pairs_of[ty] = {} end
  local fields = call('HGETALL', P .. 'n')
  for i = 1, #fields, 2 do
    local ty, queue, what = string.match(fields[i], '^([^/]+)/([^/]+)/([^/]+)$')
    if what == 'created' or what == 'purged' then
      pairs_of[ty] = pairs_of[ty] or {}
      pairs_of[ty][queue] = pairs_of[ty][queue] or { created = 0, purged = 0 }
      pairs_of[ty][queue][what] = tonumber(fields[i + 1]) or 0
    end
  end
end

local function just(key)
  return function() return { key } end
end

local function of_queues(form)
  return function()
    local out = {}
    for _, queue in ipairs(queues) do form(out, queue) end
    return out
  end
end

local function types()
  read_types()
  local out = {}
  for ty in pairs(pairs_of) do out[#out + 1] = ty end
  return out
end

local function row(id, key) examine_row(id, P .. key) end

-- Groups by the time of their last record, some at a time: a name is `<20 digits> <fingerprint>`.
local EQUAL_AT_MOST = 1000 -- groups whose last records are of one millisecond
local function groups()
  local out = {}
  local rows = call('ZRANGEBYSCORE', P .. 'fps', string.match(name, '^(%d+) ') or '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, EQUAL_AT_MOST)
  for i = 1, #rows, 2 do out[#out + 1] = string.format('%020.0f %s', tonumber(rows[i + 1]), rows[i]) end
  return out
end

local function print_of(its_name)
  return string.sub(its_name, 22)
end

local function of_limiters(part)
  return function()
    local out = call('SMEMBERS', P .. 'ls')
    out[#out + 1] = TENANTS
    for i, its_name in ipairs(out) do out[i] = part and 'L:' .. its_name .. part or its_name end
    return out
  end
end

local lanes_left = LANES_WALKED
local function lanes_of(out, queue)
  for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
    local plain, own, star = parts_of(band)
    local lane, ring = 'lane:' .. queue .. '/' .. plain .. '/', P .. 'ring:' .. queue .. '/' .. plain .. own
    for _, its_name in ipairs(star == '' and { '-' } or lanes_left > 0 and call('ZRANGE', ring, 0, lanes_left - 1) or {}) do
      out[#out + 1] = lane .. its_name
      if star ~= '' then lanes_left = lanes_left - 1 end
    end
  end
end

-- Of a limiter, and where it is by key of its instance for jobs without one: that what it counts by is ours, and that somebody will look when units wait.
local function limiter_row(its_name)
  for _, instance in ipairs({ its_name, its_name .. '@-' }) do
    limiter_of(instance)
    examine_memory(instance)
    examine_kick(instance)
  end
end

local function queue_row(queue)
  call('HGET', P .. 'q:' .. queue, 'rev')
  recount_queue(queue)
end

-- In this order: what later stages rely on is in order by then.
-- Names; what is done to each row of the index of that name; what is done once a name, after its rows; the index, if it is called otherwise.
local STAGES = {
  { just('active'), row },
  { just('delayed'), row },
  { of_queues(lanes_of), row },
  { of_queues(function(out, queue)
    for _, state in ipairs({ 'c', 'f', 'x' }) do out[#out + 1] = 'fin:' .. queue .. '/' .. state end
  end), row },
  { of_queues(function(out, queue) out[#out + 1] = 'dlq:' .. queue end), function(id, key) examine_dead(id, P .. key) end },
  { just('eu'), function(effect, key) examine_effect(effect, P .. key) end },
  { just('oplog'), examine_operation },
  { just('ops'), function(id, key) examine_listed_operation(id, P .. key) end },
  { function()
    local out = types()
    for i, ty in ipairs(out) do out[i] = 'it:' .. ty end
    return out
  end, function(id, key) examine_job(id, P .. key, window) end },
  { groups, function(id, key, its_name) examine_grouped(id, P .. key, print_of(its_name)) end,
    function(its_name) examine_group(print_of(its_name)) end, function(its_name) return 'fp:' .. print_of(its_name) end },
  { just('exp'), function(id, key) examine_expiry(id, P .. key) end },
  { of_limiters(':s'), examine_slot },
  { of_queues(function(out, queue)
    for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do
      if string.byte(band, -1) == 42 then out[#out + 1] = 'ring:' .. queue .. '/' .. string.sub(band, 1, -2) end
    end
  end), examine_lane },
  { of_limiters(':i'), examine_instance },
  { just(''), nil, examine_parked },
  { of_limiters(), nil, limiter_row },
  { of_queues(function(out, queue) out[#out + 1] = queue end), nil, queue_row },
  { of_queues(function(out, queue)
    for _, state in ipairs({ 'c', 'f', 'x' }) do out[#out + 1] = queue .. '/' .. state end
  end), nil, function(its_name) return recount_bytes(string.match(its_name, '^(.+)/(.)$')) end },
  { just(''), nil, function()
    return recount_shared('delayed', 'd', queues) + recount_shared('active', 'a', queues)
  end },
  { types, nil, function(ty) return recount_type(ty, pairs_of[ty]) end },
}

-- ---------------------------------------------------------------- one page
local room, keys = LOOKED_AT, KEYS_A_CALL

local function rank_of_next(key)
  if member == '' then return 0 end
  local rank = call('ZRANK', key, member)
  if rank and call('ZSCORE', key, member) == score then return rank + 1 end
  return call('ZCOUNT', key, '-inf', '(' .. score)
end

-- The next rows of one index; true when there may be more.
local function walk(its_name, index, look)
  local key = P .. index
  local rank = rank_of_next(key)
  local page = call('ZRANGE', key, rank, rank + room - 1, 'WITHSCORES')
  for i = 1, #page, 2 do look(page[i], index, its_name) end
  local n = #page / 2
  if n > 0 then member, score = page[#page - 1], page[#page] end
  looked, room = looked + n, room - n
  return room == 0
end

while stage <= #STAGES and room > 0 and keys > 0 do
  local names, look, once, index_of = STAGES[stage][1](), unpack(STAGES[stage], 2, 4)
  table.sort(names)
  write_indexes() -- later stages count what earlier ones put back
  open_bands()
  for _, its_name in ipairs(names) do
    if its_name >= name and room > 0 and keys > 0 then
      if its_name > name then score, member = '', '' end
      keys, name = keys - 1, its_name
      local has_more = false
      if look then has_more = walk(its_name, index_of and index_of(its_name) or its_name, look) end
      if once and not has_more then room = room - (once(its_name) or 0) end
      if not has_more then name, score, member = its_name .. '\0', '', '' end -- the smallest name behind it
    end
  end
  if room > 0 and keys > 0 then stage, name, score, member = stage + 1, '', '', '' end
end
-- ---------------------------------------------------------------- write and tell
write_indexes()
kick_freed()
open_bands()
announce()
write_rest()
for _, key in ipairs(refusals) do report('foreign_key', short(key), refused[key], false) end
local is_done = stage > #STAGES or refused[P .. 'sweep'] ~= nil
mended, found = mended_before + mended, found_before + found
if is_done then
  local last = cjson.encode({ since = since, ended = now, looked = looked, mended = mended, found = found })
  call('HSET', P .. 'sweep', 'at', '', 'due', now + every_ms, 'ended', now, 'last', last)
else
  call('HSET', P .. 'sweep', 'at', cjson.encode({ stage, name, score, member }), 'since', since, 'looked', looked, 'mended', mended, 'found', found)
end
if #rows > 0 then
  call('LPUSH', P .. 'swept', unpack(rows))
  call('LTRIM', P .. 'swept', 0, REPORTED - 1)
end
return { is_done and 1 or 0, unpack(rows) }
