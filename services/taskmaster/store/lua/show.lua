--[[ show — everything known of one job, or as much of it as is asked for.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, parts (any of b blob, r result or error, e error only, h history), now ('' = server time)
OUT    [] when there is no such job, else [1 when it waits and no live consumer has its type, fields (field, value, ...), blob, body, history rows,
       consumers (id, who it is as JSON, its plugin set as JSON; '' when forgotten)]
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

local id, parts = ARGV[1], ARGV[2]
local CONSUMERS = 51 -- one an attempt kept, and the present one

local function asked(part)
  return string.find(parts, part, 1, true) ~= nil
end

local fields = call('HGETALL', P .. 'j:' .. id)
if #fields == 0 then return {} end
local job = {}
for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end

local orphan = 0
if job.st == 'w' then
  local band_type = (tonumber(job.ls) or 0) > 0 and job.ty .. '!' or job.ty
  orphan = call('ZCOUNT', P .. 'tc:' .. band_type, '(' .. NOW, '+inf') == 0 and 1 or 0
end
local blob = asked('b') and call('GET', P .. 'b:' .. id) or ''
local body = (asked('r') or (asked('e') and job.st ~= 'c')) and call('GET', P .. 'r:' .. id) or ''
local rows, consumers, known = {}, {}, {}

local function introduce(wid)
  if not wid or wid == '' or known[wid] or #consumers >= 3 * CONSUMERS then return end
  known[wid] = true
  local info = call('GET', P .. 'o:' .. wid) or ''
  local cap = string.match(info, '"cap":"([^"]+)"') or call('HGET', P .. 'w:' .. wid, 'cap')
  local n = #consumers
  consumers[n + 1], consumers[n + 2], consumers[n + 3] = wid, info, cap and call('GET', P .. 'set:' .. cap) or ''
end

if asked('h') then
  rows = call('LRANGE', P .. 'h:' .. id, 0, -1)
  introduce(string.match(job.tk or '', '^[^.]+'))
  for _, row in ipairs(rows) do
    local read, attempt = pcall(cjson.decode, row)
    if read and type(attempt) == 'table' then introduce(attempt[5]) end
  end
end
return { orphan, fields, blob, body, rows, consumers }
