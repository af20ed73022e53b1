--[[ register — a new consumer: which types it has loaded, who it is.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid (fresh in every life), cap, info (JSON: host, pid …), plugin set (JSON: what each type is run by), types (MessagePack list),
       catalogue (MessagePack list of [type, JSON, plugin, limiters with commas or '']), alive ms, generation to use when the store has none,
       dependencies (MessagePack list of [type, dependency or '', `?` if it has a fallback or '']; and as the last one a flat list of the settings that a new breaker gets),
       now ('' = server time)
OUT    generation, now ms
REPEAT the same ]]
--- @include "lib/types"

local wid, cap, info, plugin_set, types = ARGV[1], ARGV[2], ARGV[3], ARGV[4], cmsgpack.unpack(ARGV[5])
local catalogue, alive_ms, fresh_gen, dependencies = cmsgpack.unpack(ARGV[6]), tonumber(ARGV[7]), ARGV[8], cmsgpack.unpack(ARGV[9])
local KEPT_MS = 600000
local REMEMBERED_MS = 2592000000 -- 30 days: who ran an attempt, and with which plugins

call('HSETNX', KEYS[1], 'gen', fresh_gen)
if call('HSETNX', P .. 'w:' .. wid, 'seq', 0) == 1 then
  call('HSET', P .. 'w:' .. wid, 'cap', cap, 'info', info, 'since', now)
elseif call('HEXISTS', P .. 'w:' .. wid, 'left') == 1 then
  return { call('HGET', KEYS[1], 'gen'), now } -- a late copy: the consumer has signed off since
end
call('PEXPIRE', P .. 'w:' .. wid, KEPT_MS)
call('ZADD', P .. 'ws', now + alive_ms, wid)
call('DEL', P .. 'cap:' .. cap)
if #types > 0 then
  call('SADD', P .. 'cap:' .. cap, unpack(types))
  call('PEXPIRE', P .. 'cap:' .. cap, KEPT_MS)
end
for _, ty in ipairs(types) do
  call('ZREMRANGEBYSCORE', P .. 'tc:' .. ty, '-inf', now - KEPT_MS) -- plugin sets that nobody runs any more
  call('ZADD', P .. 'tc:' .. ty, now + alive_ms, cap)
end

-- The breaker of a type's dependency is one of its limiters. One that somebody has set up stays as it is.
for i = 1, #dependencies - 1 do
  local ty, dependency, fallback = unpack(dependencies[i])
  local name = '!' .. dependency
  if dependency ~= '' and call('HSETNX', P .. 'L:' .. name, 'kind', 'breaker') == 1 then
    call('HSET', P .. 'L:' .. name, 'rev', 0, unpack(dependencies[#dependencies]))
    call('SADD', P .. 'ls', name)
  end
  limit_by(ty, nil, dependency ~= '' and name .. fallback or '')
end
for _, entry in ipairs(catalogue) do
  local ty, json, plugin, names = unpack(entry)
  call('HSET', P .. 'cat', ty, json)
  if call('HEXISTS', P .. 'orders', 'l/' .. ty .. '/names') == 0 then limit_type(ty, names or '') end
  local paused = plugin and call('HGET', P .. 'pause', 'p/' .. plugin)
  if paused then pause_with(plugin, paused, ty) end
end
call('SET', P .. 'o:' .. wid, info, 'PX', REMEMBERED_MS)
call('SET', P .. 'set:' .. cap, plugin_set, 'PX', REMEMBERED_MS)
return { call('HGET', KEYS[1], 'gen'), now }
