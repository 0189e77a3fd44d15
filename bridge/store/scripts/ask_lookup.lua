-- Ask the leader to look a reference up. KEYS: answer, lookups. ARGV: reference, most lookups, wake channel.
-- Returns the answer's JSON, '' when the lookup is waiting, or 'full'.
local answer = call('GET', KEYS[1])
if answer then return answer end
if not call('ZSCORE', KEYS[2], ARGV[1]) then
  if call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then return 'full' end
  call('ZADD', KEYS[2], clock[1], ARGV[1])
end
call('PUBLISH', ARGV[3], 'lookup')
return ''
