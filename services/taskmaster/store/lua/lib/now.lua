-- Milliseconds by the server's clock, the only one that stored times are compared with. The last ARGV replaces it in tests.
local now
if ARGV[#ARGV] == '' then
  local t = call('TIME')
  now = t[1] * 1000 + math.floor(t[2] / 1000)
else
  now = tonumber(ARGV[#ARGV])
end
-- Numbers are formatted anew for each command that takes them; this one goes into many.
local NOW = string.format('%.0f', now)
