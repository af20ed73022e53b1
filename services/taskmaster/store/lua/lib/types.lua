-- What holds for all jobs of a type: its limiters (`tl`), by its plugin's word or an operator's, which goes first; and its plugin's pause.
--- @include "lib/release"

-- What the type had is kicked: units that do not need it any more are let go.
local function limit_by(ty, names, breaker)
  local before = call('HGET', P .. 'tl', ty) or ''
  local others, its = {}, ''
  for name in string.gmatch(before, '[^,]+') do
    if string.sub(name, 1, 1) == '!' then its = name else others[#others + 1] = name end
  end
  local parts = { names or table.concat(others, ','), breaker or its }
  for i = 2, 1, -1 do
    if parts[i] == '' then table.remove(parts, i) end
  end
  local after = table.concat(parts, ',')
  if before == after then return end
  if after ~= '' then call('HSET', P .. 'tl', ty, after) else call('HDEL', P .. 'tl', ty) end
  for name in string.gmatch(before, '[^,]+') do kick_at(string.match(name, '^[^?]+'), now) end
  if waits_due then tell_keeper(waits_due) end
end

local function limit_type(ty, names) limit_by(ty, names, nil) end

-- A paused plugin's types are paused each by itself, so that a fetch asks one question; the entry tells whose pause it is.
local function pause_with(plugin, order, ty)
  local entry = cjson.decode(order)
  entry.plugin = plugin
  call('HSETNX', P .. 'pause', 't/' .. ty, cjson.encode(entry))
end

-- What the plugin published of the type: {plugin, limits …}, or an empty table.
local function published(ty)
  local read, entry = pcall(cjson.decode, call('HGET', P .. 'cat', ty) or '{}')
  return read and type(entry) == 'table' and entry or {}
end
