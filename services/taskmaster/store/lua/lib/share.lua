-- Queues that share slots take turns by weight: the rule of levels and keys once more (PROTOCOL.md, "Fetch").
--- @include "lib/fetch"

local QUEUE_STRIDE, TURNS_KEPT_MS = 5040, 600000

-- Whose turns the next n are, if all of these queues have as many jobs: queue -> how many. Between equals the first that was given is next.
local function turns_of(queues, n, tags, v, weights)
  local at, share = {}, {}
  for _, queue in ipairs(queues) do at[queue] = math.max(tags[queue], v) end
  for _ = 1, n do
    local best
    for _, queue in ipairs(queues) do
      if not best or at[queue] < at[best] then best = queue end
    end
    share[best], at[best] = (share[best] or 0) + 1, at[best] + QUEUE_STRIDE / weights[best]
  end
  return share
end

-- A queue is looked into once more: what was said to be left in it is not, perhaps.
local function forget_leftovers(queue)
  for i = #leftovers, 1, -1 do
    if leftovers[i][1] == queue then table.remove(leftovers, i) end
  end
end

-- Up to n jobs of several queues. What one has no jobs for goes to the others. Answers how many are left, and which were looked into.
local function fetch_by_weight(queues, n)
  local names, tags, weights, seen, open, taken = {}, {}, {}, {}, {}, 0
  for i, queue in ipairs(queues) do names[i], open[i] = queue, queue end
  table.sort(names)
  local key = P .. 'turns:' .. redis.sha1hex(table.concat(names, ','))
  local f = call('HMGET', key, 'V', unpack(names))
  local v = tonumber(f[1] or 0)
  for i, queue in ipairs(names) do
    tags[queue], weights[queue] = tonumber(f[i + 1] or 0), tonumber(call('HGET', P .. 'q:' .. queue, 'share') or 1)
  end
  local reached = v
  while taken < n and #open > 0 do -- each round but the last takes a queue out
    local share, left = turns_of(open, n - taken, tags, reached, weights), {}
    for _, queue in ipairs(open) do
      local wanted, got = share[queue] or 0, 0
      if wanted > 0 then
        if seen[queue] then forget_leftovers(queue) end
        got, seen[queue] = fetch(queue, wanted), true
      end
      if got > 0 then
        local stride = QUEUE_STRIDE / weights[queue]
        tags[queue] = math.max(tags[queue], reached) + got * stride
        v, taken = math.max(v, tags[queue] - stride), taken + got
      end
      if got == wanted then left[#left + 1] = queue end
    end
    open, reached = left, v
  end
  if taken > 0 then
    local row = { 'V', v }
    for queue, tag in pairs(tags) do row[#row + 1], row[#row + 2] = queue, tag end
    call('HSET', key, unpack(row))
    call('PEXPIRE', key, TURNS_KEPT_MS)
  end
  return n - taken, seen
end
