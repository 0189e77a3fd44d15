-- Read the slots. KEYS: slots, leader. ARGV: 1 to write odd records down as they count (the leader), else 0.
-- Returns {now, the leader's holder, its epoch, records, indexes of odd ones}; the records are flat: index, holder,
-- epoch, cvm id, since, deadline, closing (1/0), lost (1/0).
local records, odd = slot_records(KEYS[1], ARGV[1] == '1')
local rows, leader = {}, redis.pcall('HMGET', KEYS[2], 'holder', 'epoch')
for index, record in pairs(records) do
  for _, value in ipairs({index, record.holder, whole(record.epoch), record.cvm, whole(record.since),
    whole(record.deadline), record.closing and 1 or 0, record.lost and 1 or 0}) do rows[#rows + 1] = value end
end
return {now, leader[1] or '', leader[2] or '', rows, odd}
