-- Turns of the four priorities of one queue: the smallest max(finish tag, V) is next, ties go to the higher priority (PROTOCOL.md, "Fetch").
--- @include "lib/tag"

local WEIGHT = { [0] = 8, 4, 2, 1 }
local STRIDE = 5040 -- divisible by every weight from 1 to 10

-- is_strict: always the highest priority that has work.
local function open_turns(queue, is_strict)
  local f = call('HMGET', P .. 'vt:' .. queue, 'V', '0', '1', '2', '3')
  local tags = { V = tonumber(f[1]) or 0, queue = queue, is_strict = is_strict }
  for p = 0, 3 do tags[p] = tonumber(f[p + 2]) or 0 end
  return tags
end

-- left: how many each level still has; nil: no level has any.
local function whose_turn(tags, left)
  local best, tag
  for p = 0, 3 do
    if left[p] and left[p] > 0 then
      if tags.is_strict then return p end
      local its = math.max(tags[p], tags.V)
      if not tag or its < tag then
        best, tag = p, its
      end
    end
  end
  return best
end

-- n turns of the same level, one after the other.
local function had_turns(tags, p, n)
  if tags.is_strict then return end
  local stride = STRIDE / WEIGHT[p]
  tags.V = math.max(tags[p], tags.V) + (n - 1) * stride
  tags[p] = tags.V + stride
end

local function close_turns(tags)
  if tags.is_strict then return end
  call('HSET', P .. 'vt:' .. tags.queue, 'V', tags.V, '0', tags[0], '1', tags[1], '2', tags[2], '3', tags[3])
end
