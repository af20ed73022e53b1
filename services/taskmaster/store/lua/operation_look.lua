--[[ operation_look — what became of the jobs that an operation made; stops it when too many have failed.
FLAGS  allow-oom
KEYS   meta HASH tm:{p}:meta; all others are formed under its tag
ARGV   id, jobs at most (1 to 500), now ('' = server time)
OUT    [state, failed, jobs that are not known to have ended]; [] when there is no such operation
REPEAT looks at those that are left ]]
--- @include "lib/operation"

local id, most = ARGV[1], tonumber(ARGV[2])
local key, jobs = op_key(id), P .. 'opj:' .. id

local f = call('HMGET', key, 'st', 'so', 'n/failed', 'en', 'by', 'rs')
if not f[1] then return {} end
local seen, ended, waiting, last = { succeeded = 0, failed = 0, otherwise = 0, forgotten = 0 }, {}, {}, nil
for _, job in ipairs(call('ZRANGE', jobs, 0, most - 1)) do
  local j = call('HMGET', P .. 'j:' .. job, 'st', 'fl')
  local what
  if j[1] == 'f' or j[2] or (not j[1] and call('EXISTS', P .. 'd:' .. job) == 1) then -- one failed attempt is enough
    what, last = 'failed', job
  elseif j[1] == 'c' then
    what = 'succeeded'
  elseif j[1] == 'x' then
    what = 'otherwise'
  elseif not j[1] then
    what = 'forgotten'
  end
  if what then
    seen[what] = seen[what] + 1
    ended[#ended + 1] = job
  else
    waiting[#waiting + 1], waiting[#waiting + 2] = NOW, job
  end
end
for what, n in pairs(seen) do
  if n > 0 then call('HINCRBY', key, 'n/' .. what, n) end
end
if last then call('HSET', key, 'lf', last) end
if #waiting > 0 then call('ZADD', jobs, unpack(waiting)) end -- behind those that nobody has looked at since
if #ended > 0 then call('ZREM', jobs, unpack(ended)) end
local state, failed, limit = f[1], (tonumber(f[3]) or 0) + seen.failed, tonumber(f[2])
if state == 'running' and limit and failed >= limit then
  state = 'stopped'
  op_end(id, state, failed .. ' of its jobs have failed', f[5] or '', f[6] or '')
elseif state ~= 'running' then
  op_release(id, tonumber(f[4]) or 0)
end
return { state, failed, call('ZCARD', jobs) }
