-- Take the lead when nobody holds it, and make the log's record when there is none.
-- KEYS: leader, meta, log. ARGV: holder, lease in ms, log id to use for a new log, lowest entry id for it.
-- Returns {epoch, ms to wait, log id, sequence, last id, new log (1/0), the server's time in ms, the log's age in ms,
-- the holder whose lease ran out ('': it handed the lead over, or there was none)}; epoch 0: another process leads.
-- The meta hash calls the log id `birth` and the low-water mark `floor`: see store/keys.py.
local leader = call('HMGET', KEYS[1], 'holder', 'epoch', 'until', 'lease', 'after')
local held_until = tonumber(leader[3] or '0')
if held_until > now + tonumber(leader[4] or ARGV[2]) then
  -- No lease ends later than its length from now: the server's clock stepped back.
  held_until = now + tonumber(leader[4] or ARGV[2])
  call('HSET', KEYS[1], 'until', whole(held_until))
end
if leader[1] and leader[1] ~= ARGV[1] and held_until > now then
  return {0, held_until - now, '', 0, '', 0, now, 0, ''}
end
local ran_out = ''
if leader[1] == ARGV[1] then
  ran_out = leader[5] or ''  -- the same command again after a lost reply
elseif leader[1] and held_until > 0 then
  ran_out = leader[1]
end
local epoch = tonumber(leader[2] or '0') + 1
call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', epoch, 'until', whole(now + ARGV[2]), 'lease', ARGV[2],
  'after', ran_out)
if call('HEXISTS', KEYS[2], 'birth') == 0 then
  -- The low-water mark is this moment, and never below what the new leader itself wrote before (ids keep growing).
  local low_water_mark = whole(now) .. '-0'
  local ms, counter = id_parts(ARGV[4])
  if ms >= now then
    -- Above it, not at it: a cursor at the old log's end does not belong to the new log.
    low_water_mark = whole(ms) .. '-' .. whole(counter + 1)
  end
  call('DEL', KEYS[3])
  call('HSET', KEYS[2], 'birth', ARGV[3], 'sequence', 0, 'last_id', low_water_mark, 'floor', low_water_mark,
    'floor_sequence', 0, 'trimmed', 0, 'born_at', whole(now))
end
local meta = call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id', 'born_at')
-- Compared, so that it is also right when this is the same command again after a lost reply.
local new_log = meta[1] == ARGV[3] and 1 or 0
return {epoch, 0, meta[1], tonumber(meta[2]), meta[3], new_log, now, math.max(0, now - tonumber(meta[4] or '0')),
  ran_out}
