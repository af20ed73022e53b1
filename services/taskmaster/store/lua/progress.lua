--[[ progress — note how far attempts are. The last word wins.
FLAGS  none: refused when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   words (MessagePack list, at most 256 of [id, token, text of at most 60 bytes]), now ('' = server time)
OUT    a code a word: OK | STALE
REPEAT writes the same again ]]
--- @include "lib/tag"

local out = {}
for i, word in ipairs(cmsgpack.unpack(ARGV[1])) do
  local key = P .. 'j:' .. word[1]
  local f = call('HMGET', key, 'st', 'tk')
  if f[1] == 'a' and f[2] == word[2] then
    call('HSET', key, 'pg', word[3])
    out[i] = STATUS.OK
  else
    out[i] = STATUS.STALE
  end
end
return out
