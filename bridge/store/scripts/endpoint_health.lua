-- ARGV: limits, wake channel, endpoint ids. Returns for each {registered (1/0), JSON, disabled reason, pending, last
-- success, last failure, failing since, postponed since, why, whether that it fails was told, whether its breaker is
-- open, until when it gets nothing}, times in ms. Damaged keys of one count as if they were not there.
local found = {}
for i = 3, #ARGV do
  local E = ARGV[i]
  local text, reason = call('HGET', P .. ':endpoints', E), call('HGET', P .. ':disabled', E)
  local pending = redis.pcall('ZCARD', of('pending', E))
  local health = redis.pcall('HMGET', of('health', E), 'success_at', 'failure_at', 'failing_since', 'postponed_since',
    'postponed', 'told', 'open', 'probe_at', 'not_before')
  if health.err then health = {false, false, false, false, false, false, false, false, false} end
  local held_until = math.max(count(health[9]) or 0, health[7] and count(health[8]) or 0)
  local last = redis.pcall('HMGET', P .. ':last', 'success ' .. E, 'failure ' .. E)
  for n = 1, last.err and 0 or 2 do
    if (count(last[n]) or -1) > (count(health[n]) or -1) then health[n] = last[n] end
  end
  found[#found + 1] = {(text or call('ZSCORE', P .. ':ids', E)) and 1 or 0, text, reason,
    type(pending) == 'number' and pending or 0, health[1], health[2], health[3], health[4],
    health[5], health[6], health[7], held_until > now and whole(held_until)}
end
return found
