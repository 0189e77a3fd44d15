-- A planned stop: the lease ends now, the epoch stays spent. KEYS: leader. ARGV: holder, epoch.
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if leader[1] ~= ARGV[1] or leader[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', '0')
return 1
