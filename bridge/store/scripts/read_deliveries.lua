-- Read deliveries. KEYS: webhooks. ARGV: limits, delivery ids. Returns for each {} or {endpoint, status, created ms, finished ms,
-- next attempt ms ('' none), event JSON, attempts}.
local found = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local d = call('HMGET', of('delivery', id), 'e', 'c', 'v', 's', 'at', 'fin')
  local row = {}
  if d[1] and d[3] then
    local at = ''
    if d[4] == 'pending' and call('LINDEX', lane_key(d[1], d[2]), 0) == id and not disabled(d[1]) then
      local due = tonumber(call('ZSCORE', of('due', d[1]), d[2]) or '0')
      at = whole(math.max(due, now))
    end
    row = {d[1], d[4], d[5], d[6] or '', at, call('HGET', of('event', d[3]), 'json') or '',
      call('LRANGE', of('attempts', id), 0, -1)}
  end
  found[#found + 1] = row
end
return found
