-- Renew leases. KEYS: webhooks. ARGV: limits, lease ms, then endpoint, lane, token in turns.
-- Returns {per lane 1, or 0: it was lent to another dispatcher, or is gone; broken}.
local until_ms, kept, touched = whole(now + tonumber(ARGV[2])), {}, {}

local function extend(E, lane, token)
  if call('HGET', of('claims', E), lane) ~= token then return 0 end
  call('ZADD', of('busy', E), until_ms, lane)
  touched[E] = true
  return 1
end

write_although_full()
for i = 3, #ARGV, 3 do
  local _, own = guarded(ARGV[i], ARGV[i + 1], extend, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  kept[#kept + 1] = own or 0
end
for E in pairs(touched) do apart(E, rescore) end
return {kept, broken}
