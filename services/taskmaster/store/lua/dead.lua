--[[ dead — one dead-letter record.
FLAGS  no-writes
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, now ('' = server time)
OUT    [] when there is none, else [field, value, ...; who the consumer is as JSON, '' when forgotten]
REPEAT reads only ]]
--- @include "lib/tag"

local id = ARGV[1]
local fields = call('HGETALL', P .. 'd:' .. id)
for i = 1, #fields, 2 do
  if fields[i] == 'ow' then
    fields[#fields + 1], fields[#fields + 2] = 'who', call('GET', P .. 'o:' .. fields[i + 1]) or ''
    break
  end
end
return fields
