-- New jobs: whether they are known or may not come, and their records. A submission and a schedule that fires make jobs by the same steps.
-- A kind is what items have in common, an item is five values in a flat list (submit.lua says which).
--- @include "lib/state"
--- @include "lib/purge"
--- @include "lib/unique"

local WIDTH = 5 -- one flat list: a table an item was a tenth of the time

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

local checked, is_timely = '', false -- ids of one call mostly carry the same millisecond

-- What is known of the item before anything is written; nil: it is new. A keyed item is remembered by its key record alone.
local function known(kind, id, key, request, look_at_key)
  local made = string.sub(id, 1, 13)
  if made ~= checked then
    checked, is_timely = made, math.abs(id_ms(id) - now) <= RESEND_MS
  end
  if key ~= '' then
    local record = (look_at_key or not is_timely) and call('GET', P .. 'k:' .. key)
    if record then return by_key(record, request) end
  else
    local state = call('HGET', P .. 'j:' .. id, 'st')
    if state then return { STATUS.ALREADY, state, id } end
    if is_buried(id) then return { STATUS.ALREADY, '', id } end
  end
  if not is_timely then return { STATUS.TOO_OLD } end
  if kind.rp then
    if call('EXISTS', P .. 'd:' .. kind.rp, P .. 'j:' .. kind.rp) == 0 then return { STATUS.GONE } end
    if kind.open ~= 1 and (tonumber(call('HGET', P .. 'e:' .. kind.rt, '#')) or 0) > 0 then return { STATUS.UNKNOWN } end
  end
end

-- A replay and its source share the effects of their root. The source, or the dead-letter record that outlives it, can be replayed again.
local function join_lineage(id, root, source)
  local has_part = call('HMGET', P .. 'j:' .. source, 'rt', 'gd')
  local has_record = call('EXISTS', P .. 'd:' .. source) == 1
  if not has_record then call('HSET', P .. 'j:' .. source, 'gd', 1) end -- a failed job stays as it is
  hold_lineage(root, id, (has_record and not has_part[1] and not has_part[2]) and 'd/' .. source or source)
end

-- How many more jobs a queue takes. Asked once a call; each new job takes one.
local rooms = {}
local function room_of(queue)
  local room = rooms[queue]
  if not room then
    local f = call('HMGET', P .. 'q:' .. queue, 'drain', 'max')
    local is_there = f[2] and call('HMGET', P .. 'n', queue .. '/w', queue .. '/d')
    room = { left = math.huge, why = 'full' }
    if f[2] then
      room.max = tonumber(f[2])
      room.left = room.max - tonumber(is_there[1] or 0) - tonumber(is_there[2] or 0)
    end
    if f[1] then room.left, room.why = 0, 'draining' end
    rooms[queue] = room
  end
  return room
end

local function due_of(kind)
  return kind.delay and now + kind.delay or kind.due or 0
end

local function is_late(kind)
  return kind.ex and kind.ex <= math.max(now, due_of(kind))
end

-- Why a job that is new may not come; nil: it may.
local function refused(kind, taken)
  local room = room_of(kind.q)
  if room.left - (taken or 0) <= 0 then return { STATUS.REJECTED, room.why, room.max or 0 } end
  if is_late(kind) then return { STATUS.REJECTED, 'late', 0 } end
  if kind.ux then return unique_conflict(kind.ux) end
end

-- What the jobs of a kind share in their hashes and indexes.
local function prepare_kinds(kinds)
  for _, kind in ipairs(kinds) do
    local due = due_of(kind)
    local fields = { 'q', kind.q, 'ty', kind.ty }
    local at = 4
    if kind.pr then
      fields[at + 1], fields[at + 2], at = 'pr', kind.pr, at + 2
    end
    if kind.ma then
      fields[at + 1], fields[at + 2], at = 'ma', kind.ma, at + 2
    end
    if kind.rp then
      fields[at + 1], fields[at + 2], fields[at + 3], fields[at + 4], at = 'rt', kind.rt, 'rp', kind.rp, at + 4
    end
    if kind.ln then
      fields[at + 1], fields[at + 2], at = 'ln', kind.ln, at + 2
    end
    if kind.lf then
      fields[at + 1], fields[at + 2], at = 'lf', kind.lf, at + 2
    end
    if kind.ex then
      fields[at + 1], fields[at + 2], at = 'ex', kind.ex, at + 2
    end
    if kind.tg then
      fields[at + 1], fields[at + 2], at = 'tg', table.concat(kind.tg, ','), at + 2
    end
    if kind.ux and kind.ux[2] ~= 't' then -- the record goes with the job; with `t`, by itself
      fields[at + 1], fields[at + 2], at = 'ux', kind.ux[1], at + 2
    end
    kind.may_not = kind.ux or is_late(kind)
    if due > now then
      kind.state, kind.due = 'd', due
      fields[at + 1], fields[at + 2] = 'ra', due
    else
      kind.state, kind.lane = 'w', lane_of(kind.q, kind.pr, kind.ty, kind.ln)
    end
    kind.fields, kind.made, kind.room = fields, 0, room_of(kind.q)
  end
end

-- Store the items that are new and may come: an answer an item, as submit.lua tells it, behind those in `out`. True: indexes are to be written.
local function admit(kinds, items, out)
  local n = #items / WIDTH
  prepare_kinds(kinds)
  local blobs, b = {}, 0
  reserve_seq(n)
  for i = 1, n do
    local number, id, key, request, blob = unpack(items, (i - 1) * WIDTH + 1, i * WIDTH)
    local kind = kinds[number]
    local may_be_refused = kind.may_not or kind.room.left <= 0
    local answer = known(kind, id, key, request, kind.rp or may_be_refused)
    if not answer and may_be_refused then answer = refused(kind) end
    if not answer and key ~= '' then
      local is_new = call('SETNX', P .. 'k:' .. key, id .. ' ' .. request) == 1
      if not is_new then answer = by_key(call('GET', P .. 'k:' .. key), request) end
    end
    if not answer then
      if key ~= '' then
        call('HSET', P .. 'j:' .. id, 'st', kind.state, 'sz', #blob, 'kx', key, unpack(kind.fields))
      else
        call('HSET', P .. 'j:' .. id, 'st', kind.state, 'sz', #blob, unpack(kind.fields))
      end
      if kind.ux then hold_unique(kind.ux, id) end
      if kind.cb then
        call('HSET', P .. 'cb', id, kind.cb)
        is_heard = true
      end
      if kind.ex then into_expiring(id, kind.ex) end
      if kind.tg then
        for _, tag in ipairs(kind.tg) do add(P .. 'ig:' .. tag, NOW, id) end
      end
      if kind.lane then
        into_lane(kind.lane, id, false, kind.lf)
      else
        into_delayed(id, kind.q, kind.due)
      end
      if kind.rp then join_lineage(id, kind.rt, kind.rp) end
      add(P .. 'it:' .. kind.ty, NOW, id)
      tell('s', id)
      kind.made, kind.room.left = kind.made + 1, kind.room.left - 1
      blobs[b + 1], blobs[b + 2], b = P .. 'b:' .. id, blob, b + 2
      answer = kind.state
    end
    out[i + 1] = answer
  end
  if b == 0 then return false end
  call('MSET', unpack(blobs))
  local made = {} -- by type and queue: with keys, there are many kinds of the same
  for _, kind in ipairs(kinds) do
    local pair = kind.ty .. '/' .. kind.q
    made[pair] = (made[pair] or 0) + kind.made
  end
  for pair, its in pairs(made) do
    -- The first jobs of this type in this queue: the queue may be new.
    if its > 0 and call('HINCRBY', P .. 'n', pair .. '/created', its) == its then call('SADD', P .. 'qs', string.match(pair, '[^/]+$')) end
  end
  return true
end
