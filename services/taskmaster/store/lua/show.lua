--[[ show — everything known of one job, or as much of it as is asked for.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, parts (any of b blob, r result or error, e error only, h history, l lines), lines behind this number (of those the first 200), now ('' = server time)
OUT    [] when there is no such job, else [what holds it while it waits: no_worker, paused, rate_limited, concurrency_limited, breaker_open or '', fields (field, value, ...), blob, body, history rows,
       consumers (id, who it is as JSON, its plugin set as JSON; '' when forgotten), lines (number, space, JSON)]
REPEAT reads only ]]
--- @include "lib/hold"

local id, parts, after = ARGV[1], ARGV[2], tonumber(ARGV[3])
local CONSUMERS = 51 -- one an attempt kept, and the present one
local LINES_KEPT, LINES_TOLD = 1000, 200

local function asked(part)
  return string.find(parts, part, 1, true) ~= nil
end

local fields = call('HGETALL', P .. 'j:' .. id)
if #fields == 0 then return {} end
local job = {}
for i = 1, #fields, 2 do job[fields[i]] = fields[i + 1] end

local hold = job.st == 'w' and word_of(holds_of(job)) or ''
local blob = asked('b') and call('GET', P .. 'b:' .. id) or ''
local body = (asked('r') or (asked('e') and job.st ~= 'c')) and call('GET', P .. 'r:' .. id) or ''
local rows, consumers, known, lines = {}, {}, {}, {}

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
if asked('l') and job.lg then
  local key = P .. 'g:' .. id
  local behind = math.max(0, tonumber(string.match(job.lg, '^%d+') or 0) - after) -- or fewer, where some were lost on the way
  local tail = behind > 0 and call('LRANGE', key, -math.min(behind, LINES_KEPT), -1) or {}
  for _, row in ipairs(tail) do
    if #lines == LINES_TOLD then break end
    if (tonumber(string.match(row, '^%d+')) or 0) > after then lines[#lines + 1] = row end
  end
end
return { hold, fields, blob, body, rows, consumers, lines }
