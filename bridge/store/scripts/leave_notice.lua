-- Leave a notice for the leader, once for each name. KEYS: notices, names that are known.
-- ARGV: 1 name, 2 envelope, 3 most notices, 4 seconds for which a name is known, 5 most names, 6 wake channel, 7 message,
--   8 and 9 traceparent and tracestate of the call that brought it, or ''.
-- Returns 1, 0 where the name is known, or -1: too many wait.
local forgotten = now - ARGV[4] * 1000
if tonumber(call('ZSCORE', KEYS[2], ARGV[1]) or '0') > forgotten then return 0 end
if call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) then return -1 end
call('XADD', KEYS[1], '*', 'envelope', ARGV[2], 'traceparent', ARGV[8], 'tracestate', ARGV[9])
call('ZADD', KEYS[2], whole(now), ARGV[1])
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(forgotten))
call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[5] - 1)
call('EXPIRE', KEYS[2], ARGV[4])
call('PUBLISH', ARGV[6], ARGV[7])
return 1
