-- Milliseconds by the server's clock, the only one that stored times are compared with. The last ARGV replaces it in tests.
local NOW = ARGV[#ARGV] -- as text: numbers are formatted anew for each command that takes them, and this one goes into many
if NOW == '' then
  local t = call('TIME') -- seconds and microseconds, as text
  NOW = t[1] .. string.sub('00000' .. t[2], -6, -4)
end
local now = tonumber(NOW)
