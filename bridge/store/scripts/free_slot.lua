-- The holder closed its stream: the slot is free after a settling time. This needs no lead: a fenced leader that wakes
-- up and closes its streams frees them early. KEYS: slots. ARGV: holder, epoch, index, settling ms. Returns 1 or 0.
local text = call('HGET', KEYS[1], ARGV[3])
if not text then return 0 end
local record = cjson.decode(text)
if record.holder ~= ARGV[1] or tostring(record.epoch) ~= ARGV[2] or record.closing then return 0 end
local settled = now + tonumber(ARGV[4])
-- If the deadline passed before the holder closed its stream, a clock jumped: such a deadline shortens nothing.
record.deadline = record.deadline > now and math.min(record.deadline, settled) or settled
record.closing = true
call('HSET', KEYS[1], ARGV[3], cjson.encode(record))
return 1
