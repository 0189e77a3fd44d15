-- Keep the lead and tell the front ends where the log stands.
-- KEYS: leader, meta. ARGV: holder, epoch, lease in ms, tick channel, period in seconds. Returns 1, or 0: fenced.
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if leader[1] ~= ARGV[1] or leader[2] ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[3]), 'lease', ARGV[3])
local meta = redis.call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id')
if not meta[1] then return 0 end
redis.call('PUBLISH', ARGV[4], string.format('{"birth":"%s","sequence":%s,"id":"%s","period":%s}',
  meta[1], meta[2], meta[3], ARGV[5]))
return 1
