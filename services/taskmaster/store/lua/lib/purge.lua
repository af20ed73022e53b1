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

-- root: of the lineage that the job has a part in, nil if it stands alone; tags, unique: as the job's hash has them.
local function purge(id, ty, queue, state, keyed, root, tags, unique)
  local n = #purged_keys
  purged_keys[n + 1], purged_keys[n + 2], purged_keys[n + 3] = P .. 'j:' .. id, P .. 'b:' .. id, P .. 'r:' .. id
  purged_keys[n + 4], purged_keys[n + 5] = P .. 'h:' .. id, P .. 'g:' .. id
  rem(P .. 'it:' .. ty, id)
  count(queue .. '/' .. state, -1)
  count(ty .. '/' .. queue .. '/purged', 1)
  tell('g', id)
  if root then job_leaves_lineage(root, id) end
  for tag in string.gmatch(tags or '', '[^,]+') do rem(P .. 'ig:' .. tag, id) end
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

-- The oldest jobs of one finished index go while it holds more than `keep`, at most `limit` of them.
local function prune_index(queue, state, keep, limit)
  local key = P .. 'fin:' .. queue .. '/' .. state
  local excess = math.min(call('ZCARD', key) - keep, limit)
  if excess <= 0 then return 0 end
  local oldest = call('ZPOPMIN', key, excess)
  for i = 1, #oldest, 2 do
    local job = call('HMGET', P .. 'j:' .. oldest[i], 'ty', 'kx', 'rt', 'gd', 'tg', 'ux')
    if job[1] then purge(oldest[i], job[1], queue, state, job[2], job[3] or job[4] and oldest[i], job[5], job[6]) end
  end
  return excess
end
