--[[ store_rewound — the store has lost what it had answered: a new generation, a sweep at once, and the fact is kept for people.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   generation that the caller knew ('' = none), the one to use instead, what gave it away (a word), now ('' = server time)
OUT    [OK, generation, how] (rewound: the same store, earlier; emptied; replaced: another one answers) | [CONFLICT, generation, '']: that loss is known
REPEAT CONFLICT: the generation that the caller knew is noted as lost ]]
--- @include "lib/tag"
--- @include "lib/now"

local known, fresh, sign = ARGV[1], ARGV[2], ARGV[3]
local REMEMBERED = 8 -- generations that were lost

local gen = call('HGET', KEYS[1], 'gen') or ''
local lost = call('HGET', P .. 'sweep', 'lost') or ''
for word in string.gmatch(lost, '[^ ]+') do
  if word == known then return { STATUS.CONFLICT, gen, '' } end
end
if known == '' and gen ~= '' then return { STATUS.CONFLICT, gen, '' } end -- begun since by somebody who knew as little
local how = gen == known and 'rewound' or gen == '' and 'emptied' or 'replaced'
if how ~= 'replaced' then gen = fresh end
local words, kept = { known ~= '' and known or '-' }, 1
for word in string.gmatch(lost, '[^ ]+') do
  if kept < REMEMBERED then
    kept = kept + 1
    words[kept] = word
  end
end
call('HSET', KEYS[1], 'gen', gen)
call('HSET', P .. 'sweep', 'lost', table.concat(words, ' '), 'lostAt', now, 'how', how, 'sign', sign, 'at', '', 'due', 0)
return { STATUS.OK, gen, how }
