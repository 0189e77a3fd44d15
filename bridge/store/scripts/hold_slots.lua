-- Write down what a leader knows of slots and Redis does not (it was flushed, or its clock leapt): a missing record is
-- made, the deadline of one that is there is put off, and nothing ever ends sooner by it. Needs no lead.
-- KEYS: slots. ARGV: index, holder, epoch, cvm id, ms of its whole life, ms that are left of it; and so on.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #ARGV, 6 do
  local text = redis.call('HGET', KEYS[1], ARGV[i])
  local record = text and cjson.decode(text)
  local deadline = now + tonumber(ARGV[i + 5])
  if not record then
    record = {holder = ARGV[i + 1], epoch = tonumber(ARGV[i + 2]), cvm = ARGV[i + 3], closing = false, deadline = 0}
  end
  local same = record.holder == ARGV[i + 1] and tostring(record.epoch) == ARGV[i + 2] and not record.closing
  if same and record.deadline < deadline then
    record.since, record.deadline = deadline - tonumber(ARGV[i + 4]), deadline
    redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(record))
  end
end
return 1
