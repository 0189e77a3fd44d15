-- Renew the leader's lease, write the slots that it holds again, and publish a tick with the log's position.
-- KEYS: leader, meta, slots. ARGV: holder, epoch, lease in ms, tick channel, period in seconds; then the slots, as
-- `hold_slots` takes them. Returns {sequence and id of the log's last event, the server's time in ms}, or {}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {} end
local meta = call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id')
if not meta[1] then return {} end
if not is_count(meta[2]) or not is_id(meta[3]) then
  return redis.error_reply('ERR the record of the log could not be read')
end
hold_slots(KEYS[3], 6)
call('HSET', KEYS[1], 'until', whole(now + ARGV[3]), 'lease', ARGV[3])
call('PUBLISH', ARGV[4], string.format('{"birth":"%s","sequence":%s,"id":"%s","period":%s}',
  meta[1], meta[2], meta[3], ARGV[5]))
return {tonumber(meta[2]), meta[3], now}
