--[[ outbox_state — how it stands with ends of jobs that are to be told of: how many, how old, and whether some were dropped.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   now ('' = server time)
OUT    [ends that wait, ms since the oldest of them (0: none waits), ends ever dropped, ms since some were last (-1: never were),
       1 when anybody wants to hear of ends]
REPEAT reads only ]]
--- @include "lib/tag"
--- @include "lib/now"

-- A foreign key in the place of ours must not take all metrics along: it counts as empty, and the sweep tells of it.
local ends, rows, lost = redis.pcall('XLEN', P .. 'ob'), redis.pcall('XRANGE', P .. 'ob', '-', '+', 'COUNT', 1), redis.pcall('HMGET', P .. 'obd', 'n', 'at')
if lost.err then lost = {} end

local ended = now
local oldest = rows[1] and rows[1][2] or {}
for i = 1, #oldest, 2 do
  if oldest[i] == 'fa' then ended = tonumber(oldest[i + 1]) or now end
end
return { type(ends) == 'number' and ends or 0, math.max(0, now - ended), tonumber(lost[1]) or 0,
  lost[2] and math.max(0, now - (tonumber(lost[2]) or 0)) or -1, call('EXISTS', P .. 'cb', P .. 'whl') > 0 and 1 or 0 }
