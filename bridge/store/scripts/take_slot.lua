-- Take a slot. It is free exactly when its record is missing or its deadline has passed; no two slots hold one CVM.
-- KEYS: leader, slots. ARGV: holder, epoch, index, cvm id, ms until the hard deadline.
-- Returns {1, deadline}, {0, ms to wait} or {-1, 0}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {-1, 0} end
for index, record in pairs(slot_records(KEYS[2], true)) do
  -- The same command again after a lost reply finds its own record.
  local own = index == ARGV[3] and record.cvm == ARGV[4] and held_by(record, ARGV[1], ARGV[2]) and not record.closing
  if not own and record.deadline > now and (index == ARGV[3] or record.cvm == ARGV[4]) then
    return {0, record.deadline - now}
  end
end
local deadline = now + tonumber(ARGV[5])
write_slot(KEYS[2], ARGV[3], {holder = ARGV[1], epoch = tonumber(ARGV[2]), cvm = ARGV[4], since = now,
  deadline = deadline, closing = false, lost = false})
return {1, deadline}
