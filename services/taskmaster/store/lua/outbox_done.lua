--[[ outbox_done — the deliveries of these ends are in the store: they leave the outbox.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   entries (MessagePack list, at most 200), now ('' = server time)
OUT    how many left it now
REPEAT 0: they have left ]]
--- @include "lib/tag"

local entries = cmsgpack.unpack(ARGV[1])
if #entries == 0 then return 0 end
return call('XDEL', P .. 'ob', unpack(entries))
