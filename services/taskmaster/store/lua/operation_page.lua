--[[ operation_page — what a running operation is to act on next, as far as its rate allows, oldest first.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, rows at most (1 to 200), now ('' = server time)
OUT    [] when it is not running, else [place, place behind this page, 1 when nothing is left behind it, '' or what it waits for, then a row each];
       for replay [id, level of the job or '', field, value, ...] with what a replay needs of the dead letter, only [id] when it is gone;
       for discard and cancel [id]
REPEAT reads only ]]
--- @include "lib/operation"
--- @include "lib/walk"
--- @include "lib/letters"

local id, most = ARGV[1], tonumber(ARGV[2])
local BYTES = 1000000
local PENDING = 5000 -- jobs of one operation that are not known to have ended

local f = call('HMGET', op_key(id), 'st', 'cu', 'ac', 'fl', 'ids', 'cm', 'ra', 'tk', 'ta', 'sq')
if f[1] ~= 'running' then return {} end
local cursor, action, filter, made = f[2], f[3], letter_filter(f[4] or ''), tonumber(f[6])
local looks = (filter.text or filter.version) and 250 or 1000 -- rows that are looked at; fewer where whole errors are read

most = math.min(most, math.floor(op_tokens(f[7], f[8], f[9])))
local out, bytes = { cursor, cursor, 0, '' }, 0
if action == 'replay' and call('ZCARD', P .. 'opj:' .. id) + most > PENDING then
  most, out[4] = PENDING - call('ZCARD', P .. 'opj:' .. id), 'jobs'
end
if most <= 0 then return out end

local NEEDED = { 'id', 'ty', 'q', 'rs', 'fa', 'rt', 'b' } -- of a letter; its error is as large as most payloads
local function row_of(member)
  local row = { member }
  if action == 'replay' then
    for i, value in ipairs(call('HMGET', P .. 'd:' .. member, unpack(NEEDED))) do
      if value then
        row[2] = row[2] or call('HGET', P .. 'j:' .. member, 'pr') or ''
        row[#row + 1], row[#row + 2] = NEEDED[i], value
        bytes = bytes + #value
      end
    end
  end
  return row
end

if f[5] then -- chosen one by one
  local ids, at = cjson.decode(f[5]), tonumber(cursor) or 0
  while at < #ids and #out - 4 < most and bytes < BYTES do
    at = at + 1
    out[#out + 1] = row_of(ids[at])
  end
  out[2], out[3] = tostring(at), at == #ids and 1 or 0
  return out
end

-- What came after the order was given is not meant by it: what failed later, jobs that arrived later.
local keys, upto = nil, nil
if action ~= 'cancel' then
  keys, upto = letter_indexes(filter), latest_meant(filter, made)
elseif filter.state == 'delayed' then
  keys, upto = { P .. 'delayed' }, math.huge
else
  keys, upto = {}, tonumber(f[10])
  for _, queue in ipairs(filter.queue and { filter.queue } or call('SMEMBERS', P .. 'qs')) do
    for _, band in ipairs(call('SMEMBERS', P .. 'bands:' .. queue)) do keys[#keys + 1] = P .. 'lane:' .. queue .. '/' .. band .. '/-' end
  end
end

local function is_asked_for(member)
  if action ~= 'cancel' then return is_meant(member, filter) end
  local j = call('HMGET', P .. 'j:' .. member, 'ty', 'q')
  local since = j[1] and call('ZSCORE', P .. 'it:' .. j[1], member) -- by our clock; an id says what its submitter's did
  return since and (not filter.type or filter.type == j[1]) and (not filter.queue or filter.queue == j[2]) and tonumber(since) <= made
end

local c_score, c_member = string.match(cursor, '^(%S*) (.*)$')
if not c_score then c_score, c_member = first_meant(filter), '' end
local next_one, looked = walk(sources_of(keys, c_score, c_member, false), 100, false), 0
local score, member = next_one(true)
while score and tonumber(score) <= upto do
  looked = looked + 1
  if is_asked_for(member) then out[#out + 1] = row_of(member) end
  out[2] = score .. ' ' .. member
  score, member = next_one(true)
  if #out - 4 == most or looked == looks or bytes >= BYTES then break end
end
if not score or tonumber(score) > upto then out[3] = 1 end
return out
