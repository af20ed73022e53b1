--[[ limit_put — make a limiter, change it, or take it away. Whoever waits for it is looked at again.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   name, revision that the change was decided on (0: there is none yet, '' = whatever is there), op (random, of this request),
       rule (MessagePack map: kind slots | rate | gate | breaker, max, per ms, burst, by, of a breaker its settings, max/<fairness key>; empty: take it away),
       who, reason, now ('' = server time)
OUT    [OK, revision] | [ALREADY, revision] | [CONFLICT, revision]
REPEAT ALREADY ]]
--- @include "lib/release"
--- @include "lib/audit"

local name, known, op, rule, who, reason = ARGV[1], ARGV[2], ARGV[3], cmsgpack.unpack(ARGV[4]), ARGV[5], ARGV[6]
local key = P .. 'L:' .. name

local is = call('HMGET', key, 'rev', 'op')
local rev = tonumber(is[1]) or 0
if is[2] == op then return { STATUS.ALREADY, rev } end
if known ~= '' and tonumber(known) ~= rev then return { STATUS.CONFLICT, rev } end
local fields = {}
for field, value in pairs(rule) do
  fields[#fields + 1], fields[#fields + 2] = field, value
end
if rule.kind == 'breaker' then -- its state outlives a change of its settings
  for _, field in ipairs({ 'state', 'till', 'probes', 'good', 'bad', 'opened', 'even', 'how', 'since', 'who', 'why' }) do
    local value = call('HGET', key, field)
    if value then fields[#fields + 1], fields[#fields + 2] = field, value end
  end
end
call('DEL', key)
call('HSET', key, 'rev', rev + 1, 'op', op, unpack(fields)) -- the number stays when the limiter goes: an older order meets it
call(rule.kind and 'SADD' or 'SREM', P .. 'ls', name)
record_audit(who, rule.kind and 'limit.put' or 'limit.deleted', name, reason, cjson.encode(rule))
kick_at(name, now) -- and so its instances, if it is by key
tell_keeper(now)
return { STATUS.OK, rev + 1 }
