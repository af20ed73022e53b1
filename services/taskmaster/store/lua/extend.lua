--[[ extend — keep the leases of a process, and say that it is alive.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid, lease ms, alive ms, attempts (MessagePack list of [id, token]), now ('' = server time)
OUT    now ms, then a code an attempt: OK | STALE | CANCEL (extended, and somebody asked to cancel); [UNREGISTERED] when the wid is not known or has signed off
REPEAT the same, with later expiries ]]
--- @include "lib/tag"
--- @include "lib/now"

local wid, lease_ms, alive_ms, attempts = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), cmsgpack.unpack(ARGV[4])
local KEPT_MS = 600000 -- a consumer's record outlives it, so that its late calls are still refused
local REMEMBERED_MS = 2592000000 -- 30 days: who ran an attempt, and with which plugins

local me = call('HMGET', P .. 'w:' .. wid, 'cap', 'left')
local cap = me[1]
if not cap or me[2] then return { STATUS.UNREGISTERED } end
local out, rows = { now }, {}
for i, attempt in ipairs(attempts) do
  local f = call('HMGET', P .. 'j:' .. attempt[1], 'st', 'tk', 'cr')
  if f[1] == 'a' and f[2] == attempt[2] then
    rows[#rows + 1], rows[#rows + 2] = now + lease_ms, attempt[1]
    out[i + 1] = f[3] and STATUS.CANCEL or STATUS.OK
  else
    out[i + 1] = STATUS.STALE
  end
end
if #rows > 0 then call('ZADD', P .. 'active', 'XX', unpack(rows)) end
call('ZADD', P .. 'ws', now + alive_ms, wid)
call('PEXPIRE', P .. 'w:' .. wid, KEPT_MS)
call('PEXPIRE', P .. 'cap:' .. cap, KEPT_MS)
call('PEXPIRE', P .. 'o:' .. wid, REMEMBERED_MS)
call('PEXPIRE', P .. 'set:' .. cap, REMEMBERED_MS)
for _, ty in ipairs(call('SMEMBERS', P .. 'cap:' .. cap)) do call('ZADD', P .. 'tc:' .. ty, now + alive_ms, cap) end
return out
