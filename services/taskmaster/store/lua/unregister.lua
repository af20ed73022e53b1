--[[ unregister — a consumer goes. Its record stays ten minutes, so that its late calls are refused.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   wid, now ('' = server time)
OUT    OK
REPEAT the same ]]
--- @include "lib/wake"

sign_off(ARGV[1])
return STATUS.OK
