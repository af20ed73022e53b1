-- Which dead letters are meant: a filter, as engine.dlq.Filter writes it (JSON).
--- @include "lib/tag"

-- {type, queue, fingerprint, reason: equal; after, before: failed at or after, before, ms; text: of class and message, in lower case, as JSON
-- has it; version: of the plugin}; what is absent does not matter.
local function letter_filter(json)
  return json == '' and {} or cjson.decode(json)
end

-- The indexes in which all that are meant stand.
local function letter_indexes(filter)
  if filter.fingerprint then return { P .. 'fp:' .. filter.fingerprint } end
  if filter.queue then return { P .. 'dlq:' .. filter.queue } end
  local out = {}
  for i, queue in ipairs(call('SMEMBERS', P .. 'qs')) do out[i] = P .. 'dlq:' .. queue end
  return out
end

-- Whether membership in those indexes, and the time, say all that the filter asks for.
local function is_index_enough(filter)
  return not (filter.type or filter.reason or filter.text or filter.version or (filter.fingerprint and filter.queue))
end

local function is_meant(id, filter)
  local needs_error = filter.text or filter.version
  local f = call('HMGET', P .. 'd:' .. id, 'ty', 'q', 'rs', 'fp', needs_error and 'er' or 'ty')
  if not f[1] or (filter.type and filter.type ~= f[1]) or (filter.queue and filter.queue ~= f[2]) then return false end
  if (filter.reason and filter.reason ~= f[3]) or (filter.fingerprint and filter.fingerprint ~= f[4]) then return false end
  local failure = needs_error and f[5] or ''
  if filter.text then -- the failure is JSON: class, message, fingerprint, trace, plugin
    local upto = string.find(failure, '"' .. (f[4] or '') .. '"', 1, true) or #failure
    if not string.find(string.lower(string.sub(failure, 1, upto)), filter.text, 1, true) then return false end
  end
  if filter.version then
    local tail = '==' .. filter.version .. '"]'
    if string.sub(failure, -#tail) ~= tail then return false end
  end
  return true
end

-- Oldest first: the score to begin at ('' = the first of all), and the last one that can be meant.
local function first_meant(filter)
  return filter.after and string.format('%.0f', filter.after) or ''
end

local function latest_meant(filter, upto)
  return filter.before and math.min(upto, filter.before - 1) or upto
end
