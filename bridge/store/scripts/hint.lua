-- Keep a hint for the leader. KEYS: hints. ARGV: reference, most hints, wake channel. Returns 1, or 0: too many wait.
if call('SISMEMBER', KEYS[1], ARGV[1]) == 0 and call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
call('SADD', KEYS[1], ARGV[1])
call('PUBLISH', ARGV[3], 'hint')
return 1
