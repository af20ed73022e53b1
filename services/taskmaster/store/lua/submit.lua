--[[ submit — record new jobs and make them ready, delayed, or say that they are known.
FLAGS  none: refused before it starts when the store is out of memory
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   mode ('independent' | 'atomic'),
       kinds (MessagePack list of what items have in common, maps of q queue, ty type; and where not the default: pr priority 0-3, ma max attempts,
       due ms, delay ms; of a replay rt root id, rp replayed from, open: 1 also while an effect of the lineage is not settled; ln lane, lf 1 last in first
       out, ex expires ms, tg tags, ux unique [digest, until s | f | t, ttl ms, reject | existing | replace, key window ms], cb callback URL),
       items (MessagePack list, five values an item, at most 1,000 items: number of its kind from 1, id, key digest or '', request digest, blob),
       now ('' = server time)
OUT    now ms, then an answer an item, in order: its state: stored | [ALREADY, state, id] | [DUPLICATE, state, id of the first] |
       [REUSED, state, id of the first] | [TOO_OLD] (the id's time is not within 30 s of the store's) | [GONE] (its source is no longer there) |
       [UNKNOWN] (an effect of its lineage is not settled) | [CONFLICT, state, id] (another job has the unique work) |
       [REJECTED, full | draining | late, most jobs that may wait in the queue] (late: it expires before it could begin) | [ABORTED] (atomic: another item was refused)
REPEAT the id is the memory: the same item again answers ALREADY, or DUPLICATE with the same id ]]
--- @include "lib/admit"

local mode, kinds, items = ARGV[1], cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])

local out, n = { now }, #items / WIDTH
if mode == 'atomic' then
  local seen, taken, is_refused = {}, {}, false -- ids, keys and unique work of this call; new jobs by queue
  for i = 1, n do
    local kind, id, key, request = unpack(items, (i - 1) * WIDTH + 1, i * WIDTH - 1)
    local answer = known(kinds[kind], id, key, request, true)
    local name = key ~= '' and key or id
    if not answer and seen[name] and seen[name] ~= request and key ~= '' then answer = { STATUS.REUSED } end
    if not answer and not seen[name] then
      kind = kinds[kind]
      local digest = kind.ux and kind.ux[1]
      if digest and seen[digest] and kind.ux[4] ~= 'replace' then
        answer = { kind.ux[4] == 'existing' and STATUS.DUPLICATE or STATUS.CONFLICT, '', seen[digest] }
      else
        answer = refused(kind, taken[kind.q])
      end
      if not answer then
        seen[name], taken[kind.q] = request, (taken[kind.q] or 0) + 1
        if digest then seen[digest] = id end
      end
    end
    out[i + 1] = answer or { STATUS.ABORTED }
    if answer and answer[1] ~= STATUS.DUPLICATE and answer[1] ~= STATUS.ALREADY then is_refused = true end
  end
  if is_refused then return out end
end

if admit(kinds, items, out) then
  write_indexes()
  open_bands()
  announce()
  write_rest()
end
return out
