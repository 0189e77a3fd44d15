-- KEYS: webhooks. ARGV: endpoint ids. Returns for each {JSON, disabled reason, pending, last success, last failure,
-- failing since}, times in ms.
local found = {}
for i, E in ipairs(ARGV) do
  local times = call('HMGET', KEYS[1] .. ':health:' .. E, 'success_at', 'failure_at', 'failing_since')
  found[i] = {call('HGET', KEYS[1] .. ':endpoints', E), call('HGET', KEYS[1] .. ':disabled', E),
    call('ZCARD', KEYS[1] .. ':pending:' .. E), times[1], times[2], times[3]}
end
return found
