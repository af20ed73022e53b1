--[[ progress — note how far attempts are, and what they say. Of how far the last word wins; each line is kept once, the newest 1,000 and 64 KiB.
FLAGS  none: refused when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   words (MessagePack list, at most 256 of [id, token, text of at most 60 bytes or '', number of the first line in its attempt, line ...]), now ('' = server time)
OUT    a code a word: OK | STALE
REPEAT finds the same text, and lines that came before by their number in the attempt: nothing is written ]]
--- @include "lib/batch"

local words = cmsgpack.unpack(ARGV[1])
local LINES_KEPT, BYTES_KEPT = 1000, 65536

-- word: as above. said: `lg` of the job's hash: number of the last line, bytes kept, epoch of the last attempt that said something, its lines so far.
local function keep_lines(word, epoch, said)
  local id, first, given = word[1], word[4], #word - 4
  local last, bytes, of, taken = string.match(said or '', '^(%d+) (%d+) (%d+) (%d+)$')
  last, taken = tonumber(last) or 0, of == epoch and tonumber(taken) or 0
  local fresh, rows, size = first + given - 1 - taken, {}, 0
  if fresh <= 0 then return false end
  last = last + math.max(0, fresh - given) -- what was lost on the way has its numbers, too
  for i = math.max(1, given - fresh + 1), given do
    last = last + 1
    rows[#rows + 1] = string.format('%d ', last) .. word[4 + i]
    size = size + #rows[#rows]
  end
  local key = P .. 'g:' .. id
  local held = call('RPUSH', key, unpack(rows))
  bytes = size + (held > #rows and tonumber(bytes) or 0) -- nothing, should a foreign hand have taken the others
  while held > LINES_KEPT or (bytes > BYTES_KEPT and held > 0) do
    bytes, held = bytes - #call('LPOP', key), held - 1
  end
  return string.format('%d %d %s %d', last, bytes, epoch, taken + fresh)
end

local out = {}
for i, word in ipairs(words) do
  local key = P .. 'j:' .. word[1]
  local f = call('HMGET', key, 'st', 'tk', 'ep', 'lg', 'pg')
  if f[1] == 'a' and f[2] == word[2] then
    local said, is_new = #word > 4 and keep_lines(word, f[3], f[4]), word[3] ~= '' and word[3] ~= f[5]
    if said then call('HSET', key, 'lg', said) end
    if is_new then call('HSET', key, 'pg', word[3]) end
    if said or is_new then tell('n', word[1]) end
    out[i] = STATUS.OK
  else
    out[i] = STATUS.STALE
  end
end
write_rest()
return out
