-- Enable or disable an endpoint; behind `notice_rules.lua`. ARGV: limits, wake channel, id, enabled (1/0), reason,
--   what notices show of the endpoint (JSON, '': what they show already). Returns 1, or 0: no such endpoint.
local E = ARGV[3]
if call('HEXISTS', P .. ':endpoints', E) == 0 then return 0 end
if ARGV[4] == '0' then
  if ARGV[6] ~= '' then redis.pcall('HSET', of('health', E), 'about', ARGV[6]) end
  shut(E, ARGV[5])
elseif call('HDEL', P .. ':disabled', E) == 1 then
  off[E] = false
  touch(E)
  forget_failures(E)
  call('HDEL', of('health', E), 'not_before')
  close_breaker(E)
  rescore(E)
end
call('PUBLISH', ARGV[2], 'switched')
return 1
