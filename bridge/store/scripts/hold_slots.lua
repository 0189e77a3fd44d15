-- Write what a leader remembers of its slots and Redis lacks (it was flushed, or its clock jumped): missing records are
-- made and deadlines of existing ones put off; no slot is free sooner because of it. This needs no lead.
-- KEYS: slots. ARGV: index, holder, epoch, cvm id, ms of its whole lifetime, ms that are left of it; and so on.
local records = slot_records(KEYS[1], true)
for i = 1, #ARGV, 6 do
  local deadline = now + tonumber(ARGV[i + 5])
  local record = records[ARGV[i]]
  if not record then
    record = {holder = ARGV[i + 1], epoch = tonumber(ARGV[i + 2]), cvm = ARGV[i + 3], closing = false, deadline = 0}
  end
  if held_by(record, ARGV[i + 1], ARGV[i + 2]) and not record.closing and record.deadline < deadline then
    record.since, record.deadline = deadline - tonumber(ARGV[i + 4]), deadline
    write_slot(KEYS[1], ARGV[i], record)
  end
end
return 1
