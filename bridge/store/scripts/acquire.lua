-- Take the lead when nobody holds it, and make the log's birth record when there is none.
-- KEYS: leader, meta, log. ARGV: holder, lease in ms, birth to use for a new log, lowest id for it.
-- Returns {epoch, ms to wait, birth, sequence, last id, born now (1/0)}; epoch 0: somebody else leads.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch', 'until')
local held_until = tonumber(leader[3] or '0')
if leader[1] and leader[1] ~= ARGV[1] and held_until > now then
  return {0, held_until - now, '', 0, '', 0}
end
local epoch = tonumber(leader[2] or '0') + 1
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', epoch, 'until', string.format('%.0f', now + ARGV[2]))
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
    'floor_sequence', 0, 'trimmed', 0)
end
local meta = redis.call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id')
-- Also when this is the same command again after a lost reply.
if meta[1] == ARGV[3] then born = 1 end
return {epoch, 0, meta[1], tonumber(meta[2]), meta[3], born}
