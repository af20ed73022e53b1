-- Forgetting a terminal job. Its key record stays until its own time is up, its dead-letter record until somebody deletes that.
--- @include "lib/batch"
--- @include "lib/lineage"

local RESEND_MS = 30000 -- copies of a request older than this are refused, so nothing needs to be remembered longer

local function id_ms(id)
  return tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16)
end

-- Tombstones lie by the time that the id carries, so that a submission looks into one set.
local function tombstone_slice(id)
  return P .. 'gone:' .. math.floor(id_ms(id) / RESEND_MS)
end

local purged_keys, tombs = {}, {} -- keys to drop; ids to remember, by slice

-- Out of the books of its queue; bytes: see `bytes_of`.
local function uncount(queue, state, jobs, bytes)
  count(queue .. '/' .. state, -jobs)
  if bytes > 0 then count(queue .. '/' .. state .. '/bytes', -bytes) end
end

-- root: of the lineage that the job has a part in, nil if it stands alone; tags, unique, said: as the job's hash has them. To be uncounted by the caller.
local function purge(id, ty, queue, keyed, root, tags, unique, said)
  local n = #purged_keys
  purged_keys[n + 1], purged_keys[n + 2], purged_keys[n + 3] = P .. 'j:' .. id, P .. 'b:' .. id, P .. 'r:' .. id
  purged_keys[n + 4] = P .. 'h:' .. id
  if said then purged_keys[n + 5] = P .. 'g:' .. id end
  rem(P .. 'it:' .. ty, id)
  count(ty .. '/' .. queue .. '/purged', 1)
  tell('g', id)
  if root then job_leaves_lineage(root, id) end
  if tags then
    for tag in string.gmatch(tags, '[^,]+') do rem(P .. 'ig:' .. tag, id) end
  end
  if unique and call('GET', P .. 'u:' .. unique) == id and call('PTTL', P .. 'u:' .. unique) == -1 then call('UNLINK', P .. 'u:' .. unique) end
  if not keyed and id_ms(id) >= now - RESEND_MS then
    local slice = tombstone_slice(id)
    tombs[slice] = tombs[slice] or {}
    table.insert(tombs[slice], id)
  end
end

local function write_purged()
  for first = 1, #purged_keys, 4000 do call('UNLINK', unpack(purged_keys, first, math.min(first + 3999, #purged_keys))) end
  for slice, ids in pairs(tombs) do
    call('SADD', slice, unpack(ids))
    call('PEXPIRE', slice, 4 * RESEND_MS) -- an id is taken from one window before its time to one window after it
  end
  purged_keys, tombs = {}, {}
end

-- What a finished job counts for: `sz` and `rz` of its hash. Jobs that were submitted before there was an `sz` count for their result alone.
local function bytes_of(sz, rz)
  return (tonumber(sz) or 0) + (tonumber(rz) or 0)
end

local function purge_oldest(key, n, queue, state)
  local oldest, jobs, bytes = take_oldest(key, n), 0, 0
  for _, id in ipairs(oldest) do
    local job = call('HMGET', P .. 'j:' .. id, 'ty', 'kx', 'rt', 'gd', 'sz', 'rz', 'tg', 'ux', 'lg')
    if job[1] then
      purge(id, job[1], queue, job[2], job[3] or job[4] and id, job[7], job[8], job[9])
      jobs, bytes = jobs + 1, bytes + bytes_of(job[5], job[6])
    end
  end
  uncount(queue, state, jobs, bytes)
  return #oldest
end

-- The oldest jobs of one finished index go while it holds more than `keep` of them, or more than `bytes` (negative: any number), at most `limit`.
local function prune_index(queue, state, keep, limit, bytes)
  local key = P .. 'fin:' .. queue .. '/' .. state
  local excess, gone = math.min(call('ZCARD', key) - keep, limit), 0
  if excess > 0 then gone = purge_oldest(key, excess, queue, state) end
  if bytes < 0 then return gone end
  local field = queue .. '/' .. state .. '/bytes'
  local stored = tonumber(call('HGET', P .. 'n', field)) or 0
  while gone < limit and stored + (counts[field] or 0) > bytes and purge_oldest(key, 1, queue, state) == 1 do gone = gone + 1 end
  return gone
end

-- What is kept of one queue's jobs of one state: {count, age in ms, bytes or -1}. keep: calls.Limits as it was packed.
local PLACE = { c = 1, f = 2, x = 3 }
local function kept(keep, queue, state)
  local of_queue = keep[5][queue]
  if of_queue then return of_queue[PLACE[state]] end
  return keep[PLACE[state] + 1]
end
