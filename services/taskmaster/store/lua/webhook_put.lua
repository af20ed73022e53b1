--[[ webhook_put — make an endpoint that is told of ends, change it, or take it away.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, revision that the change was decided on (0: there is none yet, '' = whatever is there), op (random, of this request),
       fields (MessagePack map: url, ev events, ty types, qu queues (csv, '' = all), de description, off why it is disabled ('' = it is not),
       sec (JSON list of [secret, valid until ms or 0]), by; empty: take it away), who, reason, detail (JSON for the audit, no secret in it),
       now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] | [CONFLICT, revision]
REPEAT ALREADY ]]
--- @include "lib/audit"

local id, known, op, fields, who, reason, detail = ARGV[1], ARGV[2], ARGV[3], cmsgpack.unpack(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
local key = P .. 'wh:' .. id
local GONE_KEPT_MS = 600000 -- the number of one that is gone stays for late copies of older orders

local is = call('HMGET', key, 'rev', 'op', 'at', 'url', 'off', 'ev', 'on')
local rev = tonumber(is[1]) or 0
if is[2] == op then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
local flat = {}
for field, value in pairs(fields) do
  flat[#flat + 1], flat[#flat + 2] = field, value
end
local function hears_of_ends(url, off, events)
  return url and off == '' and events ~= 'health.degraded'
end

call('DEL', key)
call('HSET', key, 'rev', rev + 1, 'op', op, unpack(flat))
local hears, has_heard = hears_of_ends(fields.url, fields.off, fields.ev), hears_of_ends(is[4], is[5], is[6])
if fields.url then
  call('HSET', key, 'at', is[3] or NOW)
  if hears then call('HSET', key, 'on', has_heard and (is[7] or is[3]) or NOW) end -- by the clock that ends are judged by
  call('SADD', P .. 'whs', id)
else
  call('SREM', P .. 'whs', id)
  call('PEXPIRE', key, GONE_KEPT_MS)
end
call(hears and 'SADD' or 'SREM', P .. 'whl', id)
record_audit(who, fields.url and 'webhook.put' or 'webhook.deleted', id, reason, detail)
return { STATUS.OK, rev + 1 }
