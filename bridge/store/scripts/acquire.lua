-- Take the lead when nobody holds it, and make the log's birth record when there is none.
-- KEYS: leader, meta, log. ARGV: holder, lease in ms, birth to use for a new log, lowest id for it.
-- Returns {epoch, ms to wait, birth, sequence, last id, born now (1/0), the server's time in ms, the log's age in ms,
-- the holder whose lease ran out ('': it was handed over, or there was none)}; epoch 0: somebody else leads.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch', 'until', 'lease', 'after')
local held_until = tonumber(leader[3] or '0')
if held_until > now + tonumber(leader[4] or ARGV[2]) then
  -- No lease ends later than its length from now: the server's clock stepped back.
  held_until = now + tonumber(leader[4] or ARGV[2])
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', held_until))
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
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', epoch, 'until', string.format('%.0f', now + ARGV[2]),
  'lease', ARGV[2], 'after', ran_out)
local born = 0
if redis.call('HEXISTS', KEYS[2], 'birth') == 0 then
  -- The floor is this moment, and never below what the new leader itself has written before (ids keep growing).
  local floor = string.format('%.0f-0', now)
  local ms = tonumber(string.match(ARGV[4], '^(%d+)-') or '0')
  if ms >= now then
    -- Above it, not at it: a cursor at the old log's end is none of the new one's.
    floor = string.format('%.0f-%.0f', ms, tonumber(string.match(ARGV[4], '%-(%d+)$') or '0') + 1)
  end
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[2], 'birth', ARGV[3], 'sequence', 0, 'last_id', floor, 'floor', floor,
    'floor_sequence', 0, 'trimmed', 0, 'born_at', string.format('%.0f', now))
end
local meta = redis.call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id', 'born_at')
-- Also when this is the same command again after a lost reply.
if meta[1] == ARGV[3] then born = 1 end
return {epoch, 0, meta[1], tonumber(meta[2]), meta[3], born, now, math.max(0, now - tonumber(meta[4] or '0')), ran_out}
