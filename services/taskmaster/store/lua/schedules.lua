--[[ schedules — schedules in the order of their ids, or one of them; and how it stands with scheduling.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   which ('one', 'after' or 'none'), id (that one; those after it), most rows, now ('' = server time)
OUT    now ms, live schedulers, schedules, ms by which the most overdue one is late, schedules that missed an instant in the last hour, then a row each: [id, due ms or '', field, value, ...]
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

local which, id, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local HOUR = 3600000
local ids = {}
if which == 'one' then
  ids = { id }
elseif which == 'after' then
  ids = call('ZRANGEBYLEX', P .. 'scall', '(' .. id, '+', 'LIMIT', 0, most)
end
local first = call('ZRANGE', P .. 'scdue', 0, 0, 'WITHSCORES')[2]
local out = { now, call('ZCOUNT', P .. 'scs', '(' .. NOW, '+inf'), call('ZCARD', P .. 'scall'), first and math.max(0, now - tonumber(first)) or 0,
  call('ZCOUNT', P .. 'scmissed', now - HOUR, '+inf') }
for _, one in ipairs(ids) do
  local row = { one, call('ZSCORE', P .. 'scdue', one) or '' }
  local fields = call('HGETALL', P .. 'sc:' .. one)
  for i = 1, #fields do row[i + 2] = fields[i] end
  if #fields > 0 then out[#out + 1] = row end
end
return out
