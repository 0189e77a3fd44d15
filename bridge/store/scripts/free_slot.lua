-- The holder closed its stream: the slot is free after a settling time. This needs no lead: a fenced leader that wakes
-- up and closes its streams frees them early. KEYS: slots. ARGV: holder, epoch, index, settling ms. Returns 1 or 0.
local record = slot_records(KEYS[1], false)[ARGV[3]]
if not record or not held_by(record, ARGV[1], ARGV[2]) or record.closing then return 0 end
local settled = now + tonumber(ARGV[4])
-- If the deadline passed before the holder closed its stream, a clock jumped: such a deadline shortens nothing.
record.deadline = record.deadline > now and math.min(record.deadline, settled) or settled
record.closing = true
write_slot(KEYS[1], ARGV[3], record)
return 1
