-- The holder closed its stream: the slot is free after a settling time. Needs no lead: a fenced leader that wakes and
-- closes its streams frees them early. KEYS: slots. ARGV: holder, epoch, index, settling ms. Returns 1 or 0.
local text = redis.call('HGET', KEYS[1], ARGV[3])
if not text then return 0 end
local record = cjson.decode(text)
if record.holder ~= ARGV[1] or tostring(record.epoch) ~= ARGV[2] or record.closing then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local settled = now + tonumber(ARGV[4])
-- A deadline that has passed before its holder closed tells of a clock that leapt: it shortens nothing.
record.deadline = record.deadline > now and math.min(record.deadline, settled) or settled
record.closing = true
redis.call('HSET', KEYS[1], ARGV[3], cjson.encode(record))
return 1
