--[[ abandon — a consumer is known to be dead (its supervisor waited for the process): its leases expire now, its places are given up.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid, rank to begin at, now ('' = server time)
OUT    rank to go on at, or -1 when all were seen
REPEAT finds fewer, changes nothing else ]]
--- @include "lib/state"

local wid, first = ARGV[1], tonumber(ARGV[2])
local A_CALL = 200

if first == 0 then sign_off(wid) end
local page = call('ZRANGE', P .. 'active', first, first + A_CALL - 1)
local expired = {}
for _, id in ipairs(page) do
  if owner(call('HGET', P .. 'j:' .. id, 'tk')) == wid then
    expired[#expired + 1], expired[#expired + 2] = 0, id
  end
end
-- Those that move to the front leave the ranks behind this page as they were.
if #expired > 0 then call('ZADD', P .. 'active', 'XX', unpack(expired)) end
return #page == A_CALL and first + A_CALL or -1
