-- Take a slot. It is free exactly when its record is missing or its deadline has passed; no two slots hold one CVM.
-- KEYS: leader, slots. ARGV: holder, epoch, index, cvm id, ms until the hard deadline.
-- Returns {1, deadline}, {0, ms to wait} or {-1, 0}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {-1, 0} end
local records = call('HGETALL', KEYS[2])
for i = 1, #records, 2 do
  local record = cjson.decode(records[i + 1])
  if record.since > now then
    -- The server's clock stepped back: at most the whole lifetime is left, counted from now.
    record.since, record.deadline = now, now + (record.deadline - record.since)
    call('HSET', KEYS[2], records[i], cjson.encode(record))
  end
  -- The same command again after a lost reply finds its own record.
  local own = records[i] == ARGV[3] and record.cvm == ARGV[4] and record.holder == ARGV[1]
    and tostring(record.epoch) == ARGV[2] and not record.closing
  if not own and record.deadline > now and (records[i] == ARGV[3] or record.cvm == ARGV[4]) then
    return {0, record.deadline - now}
  end
end
local deadline = now + tonumber(ARGV[5])
call('HSET', KEYS[2], ARGV[3], cjson.encode({holder = ARGV[1], epoch = tonumber(ARGV[2]), cvm = ARGV[4],
  since = now, deadline = deadline, closing = false}))
return {1, deadline}
