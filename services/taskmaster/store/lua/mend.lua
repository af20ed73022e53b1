--[[ mend — jobs found by a walk over all keys, which no index needs to name: each is held against its indexes and put right.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   ids (MessagePack list, at most 200), key window ms, now ('' = server time)
OUT    repairs as JSON rows
REPEAT finds nothing the second time ]]
--- @include "lib/careful"
--- @include "lib/examine"

local ids, window = cmsgpack.unpack(ARGV[1]), tonumber(ARGV[2])
local REPORTED = 200

for _, id in ipairs(ids) do
  local f, gone = job_of(id)
  if gone then
    if call('UNLINK', P .. 'b:' .. id, P .. 'r:' .. id, P .. 'h:' .. id, P .. 'g:' .. id) ~= 0 then report('record_lost', id, '', true) end
  elseif f then
    local listing = P .. 'it:' .. f.ty
    if not call('ZSCORE', listing, id) and not refused[listing] then
      call('ZADD', listing, made_ms(id), id)
      call('HSETNX', P .. 'n', f.ty .. '/' .. f.q .. '/created', 0)
      report('type_unlisted', id, short(listing), true)
    end
    examine_job(id, listing, window)
  end
end
write_indexes()
open_bands()
announce()
write_rest()
for _, key in ipairs(refusals) do report('foreign_key', short(key), refused[key], false) end
if #rows > 0 then
  call('LPUSH', P .. 'swept', unpack(rows))
  call('LTRIM', P .. 'swept', 0, REPORTED - 1)
end
return rows
