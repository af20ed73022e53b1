--[[ integrity — generation, arrival counter, and what the sweeper found.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   rows of the report at most, now ('' = server time)
OUT    [generation or '', arrival counter, fields of the sweep (field, value, ...), rows of the report as JSON, newest first]
REPEAT reads only ]]
--- @include "lib/tag"

local most = tonumber(ARGV[1])
local meta = call('HMGET', KEYS[1], 'gen', 'seq')
local rows = most > 0 and call('LRANGE', P .. 'swept', 0, most - 1) or {}
return { meta[1] or '', tonumber(meta[2]) or 0, call('HGETALL', P .. 'sweep'), rows }
