-- What type each of our keys has (PROTOCOL.md, "Keys"). A key of another type is foreign: it is told, and left alone.
--- @include "lib/tag"

-- By the part of the name before the first colon.
local KINDS = {}
local function are(kind, families)
  for family in string.gmatch(families, '%S+') do KINDS[family] = kind end
end
are('hash', 'j meta sweep turns vt d op w keeper cat n maint q tl L wh cb obd chain sc scheduler e pause orders')
are('zset', 'lane ring flow delayed exp active fin dlq fp fps ops oplog opj ws tc idle in it ig kick scdue scall scmissed scs eu')
are('set', 'qs bands cap gone ls parked whs whl scheld line')
are('list', 'h g swept scfire')
are('string', 'b r k o set u')
are('stream', 'ev ob audit')
local COUNTED_BY = { s = 'zset', t = 'zset', w = 'zset', i = 'zset', b = 'hash', c = 'hash' } -- of a limiter: `L:<instance>:<letter>`

-- What stands in the place of one of ours, `a list`; nil: what is there is ours, or nothing, or the name is none of ours.
local function foreign_type(name)
  local family = string.match(name, '^[^:]+')
  local kind = family == 'L' and COUNTED_BY[string.match(name, '^L:.*:(%l)$') or ''] or KINDS[family]
  local is = call('TYPE', P .. name).ok
  return kind and is ~= 'none' and is ~= kind and 'a ' .. is or nil
end
