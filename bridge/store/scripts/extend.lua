-- Renew leases. KEYS: webhooks. ARGV: limits, lease ms, then endpoint, lane, token in turns.
-- Returns 1 per lane, or 0: it was lent to somebody else, or is gone.
local until_ms, kept, touched = whole(now + tonumber(ARGV[2])), {}, {}
for i = 3, #ARGV, 3 do
  local E, lane = ARGV[i], ARGV[i + 1]
  local own = call('HGET', of('claims', E), lane) == ARGV[i + 2]
  if own then
    call('ZADD', of('busy', E), until_ms, lane)
    touched[E] = true
  end
  kept[#kept + 1] = own and 1 or 0
end
for E in pairs(touched) do rescore(E) end
return kept
