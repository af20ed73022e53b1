-- One job, or one row of an index, held against what the other side says, and put right. Never completes, fails or re-runs a job.
--- @include "lib/state"

local rows, mended, found = {}, 0, 0 -- the report; how much of it was put right, and how much needs a person
local ROWS = 1000 -- told in one call
local KNOWN = { w = true, d = true, a = true, c = true, f = true, x = true }

-- what: the kind of damage; id: of the job, or the key; more: where, or what was there.
local function report(what, id, more, is_mended)
  if is_mended then
    mended = mended + 1
    if #id == 36 and string.find(id, '^%x+%-%x+%-7') then tell('m', id) end
  else
    found = found + 1
  end
  if #rows < ROWS then rows[#rows + 1] = cjson.encode({ at = now, what = what, id = id, where = more or '', mended = is_mended }) end
end

local function short(key)
  return string.sub(key, #P + 1)
end

local function made_ms(id)
  return tonumber(string.sub(id, 1, 8) .. string.sub(id, 10, 13), 16) or now
end

local function home_lane(f)
  return lane_of(f.q, f.pr, band_type(f.ty, f.ls), f.ln)
end

-- Where a job of this state stands.
local function home_of(f)
  if f.st == 'w' then return home_lane(f).key end
  if f.st == 'd' then return P .. 'delayed' end
  if f.st == 'a' then return P .. 'active' end
  return P .. 'fin:' .. f.q .. '/' .. f.st
end

-- Back where it belongs. The doors count; whether the counters are right is another page's question, so here they stay.
local function put_home(id, f)
  if f.st == 'w' then
    into_lane(home_lane(f), id, false, f.lf)
  elseif f.st == 'd' then
    into_delayed(id, f.q, tonumber(f.ra) or now)
  elseif f.st == 'a' then
    add(P .. 'active', NOW, id) -- its lease is over, unless its worker extends it within the grace
    return
  else
    add(P .. 'fin:' .. f.q .. '/' .. f.st, tonumber(f.fa) or now, id)
    return
  end
  count(f.q .. '/' .. f.st, -1)
end

local FIELDS = { 'st', 'q', 'ty', 'pr', 'ls', 'kx', 'ra', 'fa', 'tk', 'ep', 'hb', 'rt', 'ln', 'lf', 'ex', 'tg', 'ux', 'hl' }

-- The fields of a job that is whole; nil: there is none (`gone`), or it makes no sense.
local function job_of(id)
  local key = P .. 'j:' .. id
  local values = call('HMGET', key, unpack(FIELDS))
  local f = {}
  for i, name in ipairs(FIELDS) do f[name] = values[i] or nil end
  if f.q and f.ty and KNOWN[f.st or ''] then return f end
  if refused[key] then return nil end
  if call('EXISTS', key) == 0 then return nil, true end
  report('record_broken', id, short(key), false)
  return nil
end

local function forget_row(id, here)
  call('ZREM', here, id)
  call('UNLINK', P .. 'b:' .. id, P .. 'r:' .. id, P .. 'h:' .. id, P .. 'g:' .. id)
  call('HDEL', P .. 'cb', id)
  report('record_lost', id, short(here), true)
end

-- What a failed job must have: a record that says what is known still.
local function keep_dead_letter(id, f)
  local record = P .. 'd:' .. id
  if call('EXISTS', record) == 0 then
    local failure = call('GET', P .. 'r:' .. id) or ''
    local is_read, parts = pcall(cjson.decode, failure) -- model.job.Failure
    local print = is_read and type(parts) == 'table' and type(parts[3]) == 'string' and parts[3] or 'record_lost:' .. f.ty
    call('HSET', record, 'id', id, 'q', f.q, 'ty', f.ty, 'rs', 'record_lost', 'er', failure, 'fp', print,
      'at', (tonumber(f.ep) or 0) - (tonumber(f.hb) or 0), 'ls', f.ls or 0, 'fa', f.fa or NOW, 'rt', f.rt or id, 'ow', owner(f.tk),
      'b', call('GET', P .. 'b:' .. id) or '')
    add(P .. 'dlq:' .. f.q, f.fa or NOW, id)
    add(P .. 'fp:' .. print, f.fa or NOW, id)
    add(P .. 'fps', f.fa or NOW, print)
    report('dead_letter_lost', id, short(record), true)
  elseif not call('ZSCORE', P .. 'dlq:' .. f.q, id) and not refused[record] then
    add(P .. 'dlq:' .. f.q, f.fa or NOW, id)
    report('dead_letter_unlisted', id, 'dlq:' .. f.q, true)
  end
end

-- One key names one job for as long as the job lives, and then for the window.
local function keep_key(id, f, window)
  local key, lives = P .. 'k:' .. f.kx, f.st == 'w' or f.st == 'd' or f.st == 'a'
  local record = call('GET', key)
  if refused[key] then return end
  if not record then
    if lives then
      call('SET', key, id .. ' -') -- without the digest of the request: whoever shows the key is told of this job
      report('key_lost', id, short(key), true)
    end
  elseif string.sub(record, 1, 36) ~= id then
    if lives then report('key_conflict', id, short(key), false) end
  elseif lives and call('PTTL', key) >= 0 then
    call('PERSIST', key)
    report('key_ends', id, short(key), true)
  elseif not lives and call('PTTL', key) == -1 then
    let_key_go(f.kx, window)
    report('key_endless', id, short(key), true)
  end
end

local listed = {} -- queues and bands that this call knows to be listed
local function keep_listed(set, member, what, id)
  local name = set .. ' ' .. member
  if listed[name] then return end
  listed[name] = true
  if call('SADD', set, member) == 1 then report(what, id, short(set) .. ' ' .. member, true) end
end

-- The lane of a job that waits is in its ring, and the band is listed.
local function keep_open(lane, id)
  local bands = P .. 'bands:' .. lane.queue
  local is_listed = listed[lane.key] or call('SISMEMBER', bands, lane.band) == 1
  local is_in_ring = listed[lane.key] or not lane.ring or call('ZSCORE', lane.ring, lane.name)
  listed[lane.key] = true
  if not is_in_ring and not refused[lane.ring] then report('lane_unlisted', id, short(lane.ring) .. ' ' .. lane.name, true) end
  if lane.got == 0 and not (is_listed and is_in_ring) then fresh[#fresh + 1], lane.got = lane, 1 end -- it is opened, and somebody woken
  keep_listed(bands, lane.band, 'band_unlisted', id)
end

-- What a job is listed by beside its state: that it must not begin late, its tags, its unique work; and the slots that it holds.
local function keep_beside(id, f)
  local lives = f.st == 'w' or f.st == 'd' or f.st == 'a'
  if f.ex and lives and f.st ~= 'a' and not call('ZSCORE', P .. 'exp', id) and not refused[P .. 'exp'] then
    into_expiring(id, f.ex)
    report('index_missing', id, 'exp', true)
  end
  for tag in string.gmatch(f.tg or '', '[^,]+') do
    local key = P .. 'ig:' .. tag
    if not call('ZSCORE', key, id) and not refused[key] then
      add(key, made_ms(id), id)
      report('index_missing', id, short(key), true)
    end
  end
  if f.ux and lives and not call('GET', P .. 'u:' .. f.ux) and not refused[P .. 'u:' .. f.ux] then
    call('SET', P .. 'u:' .. f.ux, id)
    report('unique_lost', id, 'u:' .. f.ux, true)
  end
  for instance in string.gmatch(f.st == 'a' and f.hl or '', '[^,]+') do
    local key = P .. 'L:' .. instance .. ':s'
    local is_kept = call('HGET', P .. 'L:' .. string.match(instance, '^[^@]+'), 'kind') == 'slots'
    if is_kept and not call('ZSCORE', key, id) and not refused[key] then
      add(key, f.ep or 1, id)
      report('slot_lost', id, short(key), true)
    end
  end
end

-- A row of an index: its job must be there and say that it stands there. Answers the job's fields when all is well.
local function examine_row(id, here)
  local f, gone = job_of(id)
  if gone then forget_row(id, here) end
  if not f then return nil end
  local home = home_of(f)
  if home ~= here then
    call('ZREM', here, id)
    report('index_wrong', id, short(here), true)
    if not call('ZSCORE', home, id) and not refused[home] then
      put_home(id, f)
      report('index_missing', id, short(home), true)
    end
  end
  if not call('ZSCORE', P .. 'it:' .. f.ty, id) and not refused[P .. 'it:' .. f.ty] then
    add(P .. 'it:' .. f.ty, made_ms(id), id)
    report('type_unlisted', id, 'it:' .. f.ty, true)
  end
  local counted = f.ty .. '/' .. f.q .. '/created'
  if not listed[counted] then -- the counters are where types are known from
    listed[counted] = true
    call('HSETNX', P .. 'n', counted, 0)
  end
  return f
end

-- A job as its type lists it: everything that must stand beside it does, and it stands nowhere else.
local function examine_job(id, here, window)
  local f, gone = job_of(id)
  if gone then forget_row(id, here) end
  if not f then return end
  if here ~= P .. 'it:' .. f.ty then
    call('ZREM', here, id)
    add(P .. 'it:' .. f.ty, made_ms(id), id)
    report('type_wrong', id, short(here), true)
  end
  local home = home_of(f)
  local fin = P .. 'fin:' .. f.q .. '/'
  for _, other in ipairs({ home_lane(f).key, P .. 'active', P .. 'delayed', fin .. 'c', fin .. 'f', fin .. 'x' }) do
    if other ~= home and call('ZREM', other, id) == 1 then report('index_wrong', id, short(other), true) end
  end
  if not call('ZSCORE', home, id) and not refused[home] then
    put_home(id, f)
    report(f.st == 'a' and 'lease_missing' or 'index_missing', id, short(home), true)
  end
  keep_listed(P .. 'qs', f.q, 'queue_unlisted', id)
  if f.st == 'w' then
    keep_open(home_lane(f), id)
  elseif f.st == 'f' then
    keep_dead_letter(id, f)
  end
  if call('EXISTS', P .. 'b:' .. id) == 0 then report('payload_lost', id, 'b:' .. id, false) end
  if f.kx then keep_key(id, f, window) end
  if f.ex or f.tg or f.ux or f.hl then keep_beside(id, f) end
end

-- A job that must not begin late: listed as long as it has not begun.
local function examine_expiry(id, here)
  local f, gone = job_of(id)
  if gone then forget_row(id, here) end
  if not f or ((f.st == 'w' or f.st == 'd') and f.ex and tonumber(f.ex) == tonumber(call('ZSCORE', here, id))) then return end
  call('ZREM', here, id)
  report('index_wrong', id, short(here), true)
end

-- A row of a dead-letter index: its record must be there and name that queue.
local function examine_dead(id, here)
  local record = P .. 'd:' .. id
  local f = call('HMGET', record, 'q', 'fp', 'fa')
  if refused[record] then return end
  if not f[1] then
    call('ZREM', here, id)
    report('dead_letter_lost', id, short(here), true)
    return
  end
  local right = P .. 'dlq:' .. f[1]
  if right ~= here then
    call('ZREM', here, id)
    add(right, f[3] or NOW, id)
    report('index_wrong', id, short(here), true)
  end
  local group = f[2] and P .. 'fp:' .. f[2]
  if group and not call('ZSCORE', group, id) and not refused[group] then
    call('ZADD', group, f[3] or NOW, id)
    report('dead_letter_unlisted', id, short(group), true)
  end
  if group and not call('ZSCORE', P .. 'fps', f[2]) and not refused[P .. 'fps'] then
    call('ZADD', P .. 'fps', call('ZREVRANGE', group, 0, 0, 'WITHSCORES')[2] or f[3] or NOW, f[2])
    report('group_unlisted', f[2], 'fps', true)
  end
end

-- A row of a group of dead letters: its record must be there and bear that fingerprint, and its queue must list it.
local function examine_grouped(id, here, print)
  local record = P .. 'd:' .. id
  local f = call('HMGET', record, 'fp', 'q', 'fa')
  if refused[record] then return end
  if f[1] ~= print then
    call('ZREM', here, id)
    report(f[1] and 'index_wrong' or 'dead_letter_lost', id, short(here), true)
  elseif f[2] and not call('ZSCORE', P .. 'dlq:' .. f[2], id) and not refused[P .. 'dlq:' .. f[2]] then
    call('ZADD', P .. 'dlq:' .. f[2], f[3] or NOW, id)
    report('dead_letter_unlisted', id, 'dlq:' .. f[2], true)
  end
end

-- A group is listed with the time of its newest record, and not without records.
local function examine_group(print)
  local group = P .. 'fp:' .. print
  local newest, listed_at = call('ZREVRANGE', group, 0, 0, 'WITHSCORES')[2], call('ZSCORE', P .. 'fps', print)
  if refused[group] or not listed_at or listed_at == newest then return end
  if newest then call('ZADD', P .. 'fps', newest, print) else call('ZREM', P .. 'fps', print) end
  report('group_wrong', print, 'fps', true)
end

-- An operation that runs must be listed for those who carry it out.
local function examine_operation(id)
  local record = P .. 'op:' .. id
  local f = call('HMGET', record, 'st', 'cm')
  if f[1] ~= 'running' or refused[record] or call('ZSCORE', P .. 'ops', id) or refused[P .. 'ops'] then return end
  call('ZADD', P .. 'ops', f[2] or NOW, id)
  report('operation_unlisted', id, 'ops', true)
end

-- One that is listed for them must be there.
local function examine_listed_operation(id, here)
  local record = P .. 'op:' .. id
  if call('EXISTS', record) == 1 or refused[record] then return end
  call('ZREM', here, id)
  call('UNLINK', P .. 'opj:' .. id)
  report('operation_lost', id, short(record), true)
end

-- An effect whose outcome is unknown: its reservation must be there. One that is gone is no licence kept back any more, and nothing can tell.
local function examine_effect(effect, here)
  local key = P .. 'e:' .. string.sub(effect, 1, 36)
  if call('HEXISTS', key, string.sub(effect, 38)) == 1 or refused[key] then return end
  call('ZREM', here, effect)
  report('effect_lost', effect, short(key), false)
end
