-- Ask the leader to look a reference up. KEYS: answer, lookups. ARGV: reference, most lookups, wake channel,
--   seconds after which the leader leaves a lookup alone.
-- Returns the answer's JSON, '' when the lookup is waiting, or 'full'.
local answer = redis.pcall('GET', KEYS[1])
if type(answer) == 'string' and answer ~= '' then return answer end
if type(answer) == 'table' then call('DEL', KEYS[1]) end  -- it has another type
local seconds, wait = tonumber(clock[1]), tonumber(ARGV[4])
local asked = tonumber(call('ZSCORE', KEYS[2], ARGV[1]) or '-inf')
if not (asked > seconds - wait / 2 and asked <= seconds + wait) then
  if asked < 0 and call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then
    call('ZREMRANGEBYSCORE', KEYS[2], '-inf', seconds - wait)
    call('ZREMRANGEBYSCORE', KEYS[2], seconds + wait, '+inf')
    if call('ZCARD', KEYS[2]) >= tonumber(ARGV[2]) then return 'full' end
  end
  call('ZADD', KEYS[2], seconds, ARGV[1])
end
call('PUBLISH', ARGV[3], 'lookup')
return ''
