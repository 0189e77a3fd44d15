-- Read deliveries. ARGV: limits, delivery ids. Returns for each {} (also where its keys are damaged) or {endpoint, status,
-- created ms, finished ms, next attempt ms ('' none), event JSON, attempts}.
local found = {}

local function read(id)
  local d = call('HMGET', of('delivery', id), 'e', 'c', 'v', 's', 'at', 'fin', 'a')
  if not d[1] or not d[3] then return {} end
  local at = ''
  if d[4] == 'pending' and call('LINDEX', lane_key(d[1], d[2]), 0) == id and not disabled(d[1]) then
    local due = tonumber(call('ZSCORE', of('due', d[1]), d[2]) or '0')
    local not_before = tonumber(call('HGET', of('health', d[1]), 'not_before') or '0')
    at = whole(math.max(due, now, d[2] == TEST_LANE and 0 or not_before))
  end
  local attempts = call('LRANGE', of('attempts', id), 0, -1)
  if d[7] then table.insert(attempts, 1, d[7]) end
  return {d[1], d[4] or '', d[5] or '', d[6] or '', at, call('HGET', of('event', d[3]), 'json') or '', attempts}
end

for i = 2, #ARGV do
  local _, row = guarded(ARGV[i], '', read, ARGV[i])
  found[#found + 1] = row or {}
end
return found
