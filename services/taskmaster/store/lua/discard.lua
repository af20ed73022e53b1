--[[ discard — dead letters go for good, and what retention has left of their jobs. Audited.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   ids (MessagePack list, at most 200), who, reason, now ('' = server time)
OUT    a code an id: OK | GONE
REPEAT answers GONE ]]
--- @include "lib/discard"

local ids, who, reason = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

local out = {}
for i, id in ipairs(ids) do out[i] = discard(id, who, reason, '') and STATUS.OK or STATUS.GONE end
write_discarded()
return out
