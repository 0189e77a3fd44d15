-- A process of this role and version is there. KEYS: versions. ARGV: role and version, seconds until it is forgotten.
if call('TYPE', KEYS[1]).ok ~= 'zset' then call('DEL', KEYS[1]) end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. whole(now - ARGV[2] * 1000))
call('ZADD', KEYS[1], whole(now), ARGV[1])
call('EXPIRE', KEYS[1], ARGV[2])
