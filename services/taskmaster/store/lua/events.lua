--[[ events — what has happened to jobs behind a place in the stream of events, as far as it is wanted.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id of the entry that was told last ('0-0' = there was none; '' = begin with the oldest that is kept), transitions of it that were told ('' = all of it),
       wanted (MessagePack map of those given, all must hold: ids, types, queues, letters, each a map of names; key fairness key as lanes spell it), now ('' = server time)
OUT    [1 when entries behind that place are not kept any more, id and transitions of the place behind the answer, 1 when there may be more],
       then a row each: [entry id, transitions of it up to this one ('' = all of it), letter, job id, type, queue] (both '' when nothing is left of the job)
REPEAT reads only ]]
--- @include "lib/tag"

local place, told, wanted = ARGV[1], ARGV[2], cmsgpack.unpack(ARGV[3])
local ENTRIES, TRANSITIONS, RECORD = 200, 1000, 37 -- a record is a letter and a job id
local stream = P .. 'ev'

local entries = call('XRANGE', stream, place == '' and '-' or place, '+', 'COUNT', ENTRIES + 1)
local is_lost = 0
if place == '0-0' and entries[1] then
  local info = call('XINFO', 'STREAM', stream)
  local facts = {}
  for i = 1, #info, 2 do facts[info[i]] = info[i + 1] end
  if facts['entries-added'] > facts.length then is_lost = 1 end
elseif place ~= '' and place ~= '0-0' and not (entries[1] and entries[1][1] == place) then
  is_lost, told = 1, ''
  if not entries[1] then -- emptied, or of an earlier time than the place: go on with what comes
    local newest = call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
    place = newest[1] and newest[1][1] or '0-0'
  end
end

local jobs = {} -- type, queue and fairness key, by id: false where nothing is left
local function job(id)
  if jobs[id] == nil then
    local f = call('HMGET', P .. 'j:' .. id, 'ty', 'q', 'ln')
    if not f[1] then f = call('HMGET', P .. 'd:' .. id, 'ty', 'q') end
    jobs[id] = f[1] and { f[1], f[2], f[3] and string.match(f[3], '^[^~]*') or '' } or false
  end
  return jobs[id]
end

local function is_wanted(letter, id)
  if wanted.letters and not wanted.letters[letter] or wanted.ids and not wanted.ids[id] then return false end
  if not (wanted.types or wanted.queues or wanted.key) then return true end
  local of = job(id)
  return of and (not wanted.types or wanted.types[of[1]]) and (not wanted.queues or wanted.queues[of[2]]) and (not wanted.key or wanted.key == of[3])
end

local rows, looked, is_cut = {}, 0, #entries > ENTRIES
for n = 1, math.min(#entries, ENTRIES) do
  local id, text = entries[n][1], entries[n][2][1] == 'e' and entries[n][2][2] or ''
  local records = math.floor(#text / RECORD)
  local first = id ~= place and 1 or told == '' and records + 1 or tonumber(told) + 1
  local last = math.min(records, first - 1 + TRANSITIONS - looked)
  for k = first, last do
    local at = (k - 1) * RECORD + 1
    local letter, its = string.sub(text, at, at), string.sub(text, at + 1, at + RECORD - 1)
    if is_wanted(letter, its) then
      local of = job(its)
      rows[#rows + 1] = { id, k < records and tostring(k) or '', letter, its, of and of[1] or '', of and of[2] or '' }
    end
  end
  looked = looked + math.max(0, last - first + 1)
  place, told = id, last < records and tostring(last) or ''
  if told ~= '' then
    is_cut = true
    break
  end
end
if place == '' then place = '0-0' end
return { is_lost, place, told, is_cut and 1 or 0, unpack(rows) }
