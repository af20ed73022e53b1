--[[ catalogue — the job types that workers have published.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   now ('' = server time)
OUT    [type, JSON, ...]
REPEAT reads only ]]
--- @include "lib/tag"

return call('HGETALL', P .. 'cat')
