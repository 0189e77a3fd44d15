-- Ask the leader about a reference. KEYS: answer, wishes. ARGV: reference, most wishes, wake channel.
-- Returns the answer's JSON, '' when the wish stands, or 'full'.
local answer = redis.call('GET', KEYS[1])
if answer then return answer end
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then return 'full' end
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[2], time[1], ARGV[1])
end
redis.call('PUBLISH', ARGV[3], 'wish')
return ''
