-- A dead letter goes for good: the record, its places in the indexes, what it holds of its lineage, and the failed job itself, if retention has
-- left it: failed <=> one dead letter. Audited one by one.
--- @include "lib/purge"
--- @include "lib/audit"

local robbed = {} -- groups that lost a record

-- false: there is no such record. operation: in whose course, '' for none.
local function discard(id, who, reason, operation)
  local f = call('HMGET', P .. 'd:' .. id, 'q', 'ty', 'fp', 'rs', 'rt')
  local queue, ty, print = f[1], f[2], f[3]
  if not queue then return false end
  call('UNLINK', P .. 'd:' .. id) -- first: the job must not leave its place to it
  rem(P .. 'dlq:' .. queue, id)
  rem(P .. 'fp:' .. print, id)
  robbed[print] = true
  local job = call('HMGET', P .. 'j:' .. id, 'st', 'ty', 'q', 'kx', 'rt', 'gd', 'sz', 'rz', 'tg', 'ux', 'lg')
  if job[1] == 'f' then
    rem(P .. 'fin:' .. job[3] .. '/f', id)
    purge(id, job[2], job[3], job[4], job[5] or job[6] and id, job[9], job[10], job[11])
    uncount(job[3], 'f', 1, bytes_of(job[7], job[8]))
  end
  leave_lineage(f[5] or id, 'd/' .. id)
  record_audit(who, 'dead_letter.discarded', id, reason,
    cjson.encode({ type = ty, queue = queue, fingerprint = print, failedFor = f[4], operation = operation ~= '' and operation or nil }))
  return true
end

-- After all: groups are listed with the time of the newest record that is left.
local function write_discarded()
  write_indexes()
  write_purged()
  write_rest()
  for print in pairs(robbed) do
    local newest = call('ZREVRANGE', P .. 'fp:' .. print, 0, 0, 'WITHSCORES')[2]
    if newest then call('ZADD', P .. 'fps', newest, print) else call('ZREM', P .. 'fps', print) end
  end
end
