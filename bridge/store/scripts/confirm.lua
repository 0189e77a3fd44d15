-- Snapshots whose observed_at moved without an event. KEYS: leader, state, watches.
-- ARGV: holder, epoch, then cvm id and snapshot JSON in turns. Returns 1, or 0: fenced.
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if leader[1] ~= ARGV[1] or leader[2] ~= ARGV[2] then return 0 end
for i = 3, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[3], ARGV[i]) then redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return 1
