-- One effect of a lineage: a JSON row in `e:<root>`, its result beside it, `#` the number that are reserved (PROTOCOL.md, "Effects").
--- @include "lib/lineage"
--- @include "lib/now"

-- Places in a row. State: r reserved, d done, f given back: it surely did not happen.
local STATE, TOKEN, CALL, JOB, NAME, KEY, RESERVED, SETTLED, HOW, WHO, REASON = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

local function effect_row(root, effect)
  local row = call('HGET', P .. 'e:' .. root, effect)
  return row and cjson.decode(row)
end

local function is_owner_current(row)
  local f = call('HMGET', P .. 'j:' .. row[JOB], 'st', 'tk')
  return f[1] == 'a' and f[2] == row[TOKEN]
end

-- Reserved becomes done or free. HOW: `own` the attempt's word, `late` the same after its lease was lost, `person`.
local function settle_effect(root, effect, row, happened, how, who, reason, result)
  row[STATE], row[SETTLED], row[HOW], row[WHO], row[REASON] = happened and 'd' or 'f', now, how, who, reason
  local key = P .. 'e:' .. root
  call('HSET', key, effect, cjson.encode(row))
  if happened and result ~= '' then call('HSET', key, 'r/' .. effect, result) end
  call('HINCRBY', key, '#', -1)
  call('ZREM', P .. 'eu', root .. '/' .. effect)
  leave_lineage(root, 'e/' .. effect)
end
