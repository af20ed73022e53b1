-- The members of several indexes as one list, by score and then by member, from behind a place on, in either direction.
--- @include "lib/tag"

-- How many members of an index come before the page: those up to the place, the place itself included.
local function rank_behind(key, score, member, newest_first)
  if score == '' then return 0 end
  local rank = call(newest_first and 'ZREVRANK' or 'ZRANK', key, member)
  if rank and call('ZSCORE', key, member) == score then return rank + 1 end
  local low = newest_first and call('ZCOUNT', key, '(' .. score, '+inf') or call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local there = call(newest_first and 'ZREVRANGE' or 'ZRANGE', key, middle, middle)[1]
    if (newest_first and there >= member) or (not newest_first and there <= member) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function sources_of(keys, score, member, newest_first)
  local sources = {}
  for i, key in ipairs(keys) do sources[i] = { key = key, rank = rank_behind(key, score, member, newest_first), rows = {}, at = 1 } end
  return sources
end

-- Answers a function that shows the next one, (score, member) or nothing, and passes it when it is called with true.
local function walk(sources, batch, newest_first)
  local function head(source)
    if source.at > #source.rows and source.key then
      local range = newest_first and 'ZREVRANGE' or 'ZRANGE'
      source.rows, source.at = call(range, source.key, source.rank, source.rank + batch - 1, 'WITHSCORES'), 1
      source.rank = source.rank + #source.rows / 2
      if #source.rows == 0 then source.key = nil end
    end
    return source.rows[source.at], source.rows[source.at + 1]
  end
  return function(pass)
    local best, best_member, best_score
    for _, source in ipairs(sources) do
      local member, score = head(source)
      if member then
        local a, b = tonumber(score), tonumber(best_score)
        local is_equal = a == b
        local is_next = not best or (not is_equal and (a > b) == newest_first) or (is_equal and (member > best_member) == newest_first)
        if is_next then best, best_member, best_score = source, member, score end
      end
    end
    if best and pass then best.at = best.at + 2 end
    return best_score, best_member
  end
end
