-- What an attempt held of limiters is given back with its lease, in the same step: there is no call of its own that could be lost.
--- @include "lib/batch"
--- @include "lib/wake"

local freed = {} -- instances that got room in this call
local slots_of = {} -- keys of the slots, by what a job held

local function give_back(id, held)
  local slots = slots_of[held]
  if not slots then
    slots = {}
    for instance in string.gmatch(held, '[^,]+') do
      slots[#slots + 1], freed[instance] = P .. 'L:' .. instance .. ':s', true
    end
    slots_of[held] = slots
  end
  for i = 1, #slots do rem(slots[i], id) end
end

-- The limiter is looked at again then, or earlier.
local function kick_at(instance, at)
  call('ZADD', P .. 'kick', 'LT', at, instance)
  falls_due(at)
end

-- After the indexes are written: what got room is looked at, if somebody waits for it.
local function kick_freed()
  for instance in pairs(freed) do
    if call('EXISTS', P .. 'L:' .. instance .. ':w') == 1 then kick_at(instance, now) end
  end
  freed, slots_of = {}, {}
end
