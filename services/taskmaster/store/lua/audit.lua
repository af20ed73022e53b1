--[[ audit — one page of the audit, newest first, filtered.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   entry id to begin at as XREVRANGE takes it ('+' = the newest), at or after ms (by the time that rows tell; 0 = any), before ms, who ('' = anybody), action ('' = any),
       target ('' = any; also what is below it: `<target>/…`), rows at most, now ('' = server time)
OUT    1 when there may be more, id of the last entry looked at ('' when none was), number and hash of the chain's head ('' when there is none), 1 when rows went although
       no more are there than are kept, then a row each: [entry id, field, value, ...]
REPEAT reads only ]]
--- @include "lib/audit"

local from, since, before, who, action, target, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local LOOKED_AT, BYTES, BEFORE_ROWS, SLACK_MS = 2000, 1000000, 5, 60000 -- the time that a row tells and that of its entry may differ so far

local function is_wanted(f)
  local at = tonumber(f.at) or 0
  return at >= since and (before == 0 or at < before) and (who == '' or f.who == who) and (action == '' or f.action == action)
    and (target == '' or f.target == target or string.sub(f.target or '', 1, #target + 1) == target .. '/')
end

if before > 0 and from == '+' then from = string.format('%.0f', before + SLACK_MS) end
local oldest = since > SLACK_MS and string.format('%.0f', since - SLACK_MS) or '-'
local head, first = call('HMGET', P .. 'chain', 'n', 'h'), call('XRANGE', P .. 'audit', '-', '+', 'COUNT', 1)[1]
local first_number = 0
for i = 1, first and #first[2] or 0, 2 do
  if first[2][i] == 'n' then first_number = tonumber(first[2][i + 1]) or 0 end
end
local is_short = first_number > 1 and call('XLEN', P .. 'audit') < AUDIT_KEPT
local out = { 0, '', head[1] or '', head[2] or '', is_short and 1 or 0 }
local piece, looked, bytes = most == 0 and 1 or math.min(most + 1, 50), 0, 0 -- a row may be as large as what somebody sent
local entries
repeat
  entries = call('XREVRANGE', P .. 'audit', from, oldest, 'COUNT', piece)
  for _, entry in ipairs(entries) do
    if #out - BEFORE_ROWS == most or looked == LOOKED_AT or bytes >= BYTES then
      out[1] = 1
      return out
    end
    out[2], looked = entry[1], looked + 1
    local f, fields = {}, entry[2]
    for k = 1, #fields, 2 do
      f[fields[k]] = fields[k + 1]
      bytes = bytes + #fields[k + 1]
    end
    if is_wanted(f) then
      table.insert(fields, 1, entry[1])
      out[#out + 1] = fields
    end
  end
  from = '(' .. out[2]
until #entries < piece
return out
