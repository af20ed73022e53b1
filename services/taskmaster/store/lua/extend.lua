--[[ extend — keep the leases of a process, and say that it is alive.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid, lease ms, alive ms, attempts (MessagePack list of [id, epoch, token]), now ('' = server time)
OUT    now ms, then a code an attempt: OK | STALE | CANCEL (extended, and somebody asked to cancel); [UNREGISTERED] when the wid is not known
REPEAT the same, with later expiries ]]
--- @include "lib/status"
--- @include "lib/tag"
--- @include "lib/now"

local wid, lease_ms, alive_ms, attempts = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), cmsgpack.unpack(ARGV[4])
local KEPT_MS = 600000 -- a consumer's record outlives it, so that its late calls are still refused

local cap = call('HGET', P .. 'w:' .. wid, 'cap')
if not cap then return { STATUS.UNREGISTERED } end
local out, rows = { now }, {}
for i, attempt in ipairs(attempts) do
  local f = call('HMGET', P .. 'j:' .. attempt[1], 'st', 'ep', 'tk', 'cr')
  if f[1] == 'a' and tonumber(f[2]) == attempt[2] and f[3] == attempt[3] then
    rows[#rows + 1], rows[#rows + 2] = now + lease_ms, attempt[1]
    out[i + 1] = f[4] and STATUS.CANCEL or STATUS.OK
  else
    out[i + 1] = STATUS.STALE
  end
end
if #rows > 0 then call('ZADD', P .. 'active', 'XX', unpack(rows)) end
call('ZADD', P .. 'ws', now + alive_ms, wid)
call('PEXPIRE', P .. 'w:' .. wid, KEPT_MS)
call('PEXPIRE', P .. 'cap:' .. cap, KEPT_MS)
for _, ty in ipairs(call('SMEMBERS', P .. 'cap:' .. cap)) do call('ZADD', P .. 'tc:' .. ty, now + alive_ms, cap) end
return out
