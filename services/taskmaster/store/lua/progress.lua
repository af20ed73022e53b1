--[[ progress — note how far attempts are. The last word wins.
FLAGS  none: refused when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   words (MessagePack list, at most 256 of [id, epoch, token, text of at most 60 bytes]), now ('' = server time)
OUT    a code a word: OK | STALE
REPEAT writes the same again ]]
--- @include "lib/status"
--- @include "lib/tag"

local out = {}
for i, word in ipairs(cmsgpack.unpack(ARGV[1])) do
  local key = P .. 'j:' .. word[1]
  local f = call('HMGET', key, 'st', 'ep', 'tk')
  if f[1] == 'a' and tonumber(f[2]) == word[2] and f[3] == word[3] then
    call('HSET', key, 'pg', word[4])
    out[i] = STATUS.OK
  else
    out[i] = STATUS.STALE
  end
end
return out
