-- Foreign keys in the place of ours must not stop a sweep half way: what the server refuses counts as empty, and is told.
-- To be included first: every other part calls through this.
local NOTHING = {
  GET = false, HGET = false, ZSCORE = false, ZRANK = false, EXISTS = 0, ZCARD = 0, ZCOUNT = 0, ZREM = 0, SADD = 0, SISMEMBER = 0,
  HINCRBY = 0, HEXISTS = 0, PTTL = -2,
}
local refused, refusals = {}, {} -- by key: what the server said; the keys in order

call = function(...)
  local said = redis.pcall(...)
  if type(said) ~= 'table' or not said.err then return said end
  local command, key = ...
  if not refused[key] then
    refused[key] = said.err
    refusals[#refusals + 1] = key
  end
  local nothing = NOTHING[command]
  if nothing == nil then return {} end
  return nothing
end
