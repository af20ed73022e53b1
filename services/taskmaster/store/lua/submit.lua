--[[ submit — record new jobs and make them ready, delayed, or say that they are known.
FLAGS  none: refused before it starts when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   mode ('independent' | 'atomic'), items (MessagePack list, at most 1,000 of
       [id, queue, type, priority 0-3, due ms or 0, delay ms, max attempts, key digest or '', request digest, blob, root id or '', replayed from or '',
       1: also while an effect of the lineage is not settled]),
       now ('' = server time)
OUT    now ms, then a row an item, in order: [OK, state, id] | [ALREADY, state, id] | [DUPLICATE, state, id of the first] |
       [REUSED, state, id of the first] | [TOO_OLD] (the id's time is not within 30 s of the store's) | [GONE] (its source is no longer there) |
       [UNKNOWN] (an effect of its lineage is not settled) | [ABORTED] (atomic: another item was refused)
REPEAT the id is the memory: the same item again answers ALREADY, or DUPLICATE with the same id ]]
--- @include "lib/status"
--- @include "lib/state"
--- @include "lib/purge"

local mode, items = ARGV[1], cmsgpack.unpack(ARGV[2])

local graves = {} -- by slice: whether it holds anything
local function is_buried(id)
  local slice = tombstone_slice(id)
  if graves[slice] == nil then graves[slice] = call('EXISTS', slice) == 1 end
  return graves[slice] and call('SISMEMBER', slice, id) == 1
end

local function by_key(record, request)
  local first = string.sub(record, 1, 36)
  local its = string.sub(record, 38) -- '-': the sweeper made the record anew, and the request's digest is lost
  return { (its == request or its == '-') and STATUS.DUPLICATE or STATUS.REUSED, call('HGET', P .. 'j:' .. first, 'st') or '', first }
end

-- What is known of the item before anything is written; nil: it is new. A keyed item is remembered by its key record alone.
local function known(item, look_at_key)
  local id, key = item[1], item[8]
  if key ~= '' then
    local record = (look_at_key or id_ms(id) < now - RESEND_MS) and call('GET', P .. 'k:' .. key)
    if record then return by_key(record, item[9]) end
  else
    local state = call('HGET', P .. 'j:' .. id, 'st')
    if state then return { STATUS.ALREADY, state, id } end
    if is_buried(id) then return { STATUS.ALREADY, '', id } end
  end
  if id_ms(id) < now - RESEND_MS or id_ms(id) > now + RESEND_MS then return { STATUS.TOO_OLD } end
  if item[12] ~= '' then
    if call('EXISTS', P .. 'd:' .. item[12], P .. 'j:' .. item[12]) == 0 then return { STATUS.GONE } end
    if item[13] ~= 1 and (tonumber(call('HGET', P .. 'e:' .. item[11], '#')) or 0) > 0 then return { STATUS.UNKNOWN } end
  end
end

-- A replay and its source share the effects of their root. The source, or the dead-letter record that outlives it, can be replayed again.
local function join_lineage(id, root, source)
  local has_part = call('HMGET', P .. 'j:' .. source, 'rt', 'gd')
  local has_record = call('EXISTS', P .. 'd:' .. source) == 1
  if not has_record then call('HSET', P .. 'j:' .. source, 'gd', 1) end -- a failed job stays as it is
  hold_lineage(root, id, (has_record and not has_part[1] and not has_part[2]) and 'd/' .. source or source)
end

local out = { now }
if mode == 'atomic' then
  local seen, refused = {}, false
  for i, item in ipairs(items) do
    local answer = known(item, true)
    local key = item[8]
    if not answer and key ~= '' then
      if seen[key] and seen[key] ~= item[9] then answer = { STATUS.REUSED } end
      seen[key] = item[9]
    end
    out[i + 1] = answer or { STATUS.ABORTED }
    if answer and answer[1] ~= STATUS.DUPLICATE and answer[1] ~= STATUS.ALREADY then refused = true end
  end
  if refused then return out end
end

local queues, blobs, created = {}, {}, {}
reserve_seq(#items)
for i, item in ipairs(items) do
  local answer = known(item, item[12] ~= '')
  if not answer and item[8] ~= '' then
    local record = call('SET', P .. 'k:' .. item[8], item[1] .. ' ' .. item[9], 'NX', 'GET')
    if record then answer = by_key(record, item[9]) end
  end
  if not answer then
    local id, queue, ty, prio, due, key = item[1], item[2], item[3], item[4], item[5], item[8]
    if item[6] > 0 then due = now + item[6] end
    local state = due > now and 'd' or 'w'
    local fields, n = { 'st', state, 'q', queue, 'ty', ty }, 6
    if key ~= '' then
      fields[n + 1], fields[n + 2] = 'kx', key
      n = n + 2
    end
    if prio ~= NORMAL then
      fields[n + 1], fields[n + 2] = 'pr', prio
      n = n + 2
    end
    if item[7] ~= ATTEMPTS then
      fields[n + 1], fields[n + 2] = 'ma', item[7]
      n = n + 2
    end
    if state == 'd' then
      fields[n + 1], fields[n + 2] = 'ra', due
      n = n + 2
      into_delayed(id, queue, due)
    else
      into_lane(id, queue, prio, ty, false)
    end
    if item[12] ~= '' then
      fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'rt', item[11], 'rp', item[12]
      join_lineage(id, item[11], item[12])
    end
    call('HSET', P .. 'j:' .. id, unpack(fields))
    local b = #blobs
    blobs[b + 1], blobs[b + 2] = P .. 'b:' .. id, item[10]
    queues[queue] = true
    add(P .. 'it:' .. ty, NOW, id)
    local of_type = created[ty] or {}
    created[ty], of_type[queue] = of_type, (of_type[queue] or 0) + 1
    tell('s', id)
    answer = { STATUS.OK, state, id }
  end
  out[i + 1] = answer
end
if #blobs > 0 then
  call('MSET', unpack(blobs))
  for queue in pairs(queues) do call('SADD', P .. 'qs', queue) end
  for ty, of_type in pairs(created) do
    for queue, n in pairs(of_type) do count(ty .. '/' .. queue .. '/created', n) end
  end
  write_indexes()
  open_bands()
  announce()
  write_rest()
end
return out
