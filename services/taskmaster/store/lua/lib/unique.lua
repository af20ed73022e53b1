-- One job for one work: `u:<digest>` names the job that has it. Whether that job still counts is judged when another comes.
--- @include "lib/state"

-- ux: [digest, until, ttl ms, otherwise, key window ms]; the id and fields of the job that has the work now, nil if none.
local function holder_of(ux)
  local id = call('GET', P .. 'u:' .. ux[1])
  if not id then return nil end
  local f = call('HMGET', P .. 'j:' .. id, 'st', 'ep', 'q', 'pr', 'ty', 'ls', 'ln', 'kx')
  local is_waiting = f[1] == 'w' or f[1] == 'd'
  local holds = ux[2] == 't' or is_waiting or f[1] == 'a' -- `t`: until the record itself is gone
  if ux[2] == 's' then holds = is_waiting and (tonumber(f[2]) or 0) == 0 end
  return holds and id or nil, f, is_waiting
end

-- Another job has the work: the answer to give; nil: nobody has, or the one that has makes way.
local function unique_conflict(ux)
  local id, f, is_waiting = holder_of(ux)
  if not id or (ux[4] == 'replace' and is_waiting) then return nil end
  return { ux[4] == 'existing' and STATUS.DUPLICATE or STATUS.CONFLICT, f[1] or '', id }
end

local function hold_unique(ux, id)
  local old, f, is_waiting = holder_of(ux)
  if old and is_waiting then
    write_indexes() -- its own row may have come with this call
    out_of_rest(old, f[1], f[3], f[4], band_type(f[5], f[6]), f[7])
    call('HSET', P .. 'j:' .. old, 'st', 'x', 'fa', NOW, 'rs', 'replaced')
    if f[8] then let_key_go(f[8], ux[5]) end
    rem(P .. 'exp', old)
    into_finished(old, f[3], 'x')
    count(f[5] .. '/' .. f[3] .. '/cancelled', 1)
    tell('x', old)
  end
  if ux[2] == 't' then
    call('SET', P .. 'u:' .. ux[1], id, 'PX', ux[3])
  else
    call('SET', P .. 'u:' .. ux[1], id)
  end
end
