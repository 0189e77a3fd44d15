-- Write what a leader remembers of its slots and Redis lacks (it was flushed, or its clock jumped): missing records are
-- made and deadlines of existing ones put off; no slot is free sooner because of it. This needs no lead.
-- KEYS: slots. ARGV: index, holder, epoch, cvm id, ms of its whole lifetime, ms that are left of it; and so on.
for i = 1, #ARGV, 6 do
  local text = call('HGET', KEYS[1], ARGV[i])
  local record = text and cjson.decode(text)
  local deadline = now + tonumber(ARGV[i + 5])
  if not record then
    record = {holder = ARGV[i + 1], epoch = tonumber(ARGV[i + 2]), cvm = ARGV[i + 3], closing = false, deadline = 0}
  end
  local same = record.holder == ARGV[i + 1] and tostring(record.epoch) == ARGV[i + 2] and not record.closing
  if same and record.deadline < deadline then
    record.since, record.deadline = deadline - tonumber(ARGV[i + 4]), deadline
    call('HSET', KEYS[1], ARGV[i], cjson.encode(record))
  end
end
return 1
