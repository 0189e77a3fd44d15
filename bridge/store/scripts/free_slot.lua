-- The holder closed its stream: the slot is free after a settling time. Needs no lead: a fenced leader that wakes and
-- closes its streams frees them early. KEYS: slots. ARGV: holder, epoch, index, settling ms. Returns 1 or 0.
local text = redis.call('HGET', KEYS[1], ARGV[3])
if not text then return 0 end
local record = cjson.decode(text)
if record.holder ~= ARGV[1] or tostring(record.epoch) ~= ARGV[2] or record.closing then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
record.deadline = math.min(record.deadline, now + tonumber(ARGV[4]))
record.closing = true
redis.call('HSET', KEYS[1], ARGV[3], cjson.encode(record))
return 1
