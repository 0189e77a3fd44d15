-- Take the lead when nobody holds it, and make the log's record when there is none.
-- KEYS: leader, meta, log. ARGV: holder, lease in ms, log id to use for a new log, lowest entry id for it.
-- Returns {epoch, ms to wait, log id, sequence, last id, new log (1/0), the server's time in ms, the log's age in ms,
-- the holder whose lease ran out ('': it handed the lead over, or there was none), what had to be mended ('' nothing),
-- holder and epoch of the term before this one}; epoch 0: another process leads, and
-- the log is as it is.
-- The meta hash calls the log id `birth` and the low-water mark `floor`: see store/keys.py.
local function number(text, most)
  local value = tonumber(text)
  return value and value >= 0 and value <= most and value
end
local kind = call('TYPE', KEYS[1]).ok
local leader = kind == 'hash' and call('HMGET', KEYS[1], 'holder', 'epoch', 'until', 'lease', 'after',
  'before', 'before_epoch') or {}
local held_until, last_epoch = number(leader[3] or '0', 1e15), number(leader[2] or '0', 1e12)
if last_epoch then last_epoch = math.floor(last_epoch) end  -- a fraction would fence every holder
if kind ~= 'none' and not (leader[1] and leader[3] and held_until and last_epoch) then
  -- It may be somebody's lease: it lasts as long as this one would, and its holder is fenced.
  call('DEL', KEYS[1])
  call('HSET', KEYS[1], 'holder', 'unknown', 'epoch', last_epoch or 0, 'until', whole(now + ARGV[2]), 'lease', ARGV[2])
  return {0, tonumber(ARGV[2]), '', 0, '', 0, now, 0, '', 'the lease could not be read', '', 0}
end
-- No lease ends later than its length from now: else the server's clock stepped back.
local longest = now + (number(leader[4] or ARGV[2], 3600000) or tonumber(ARGV[2]))
if held_until > longest then
  held_until = longest
  call('HSET', KEYS[1], 'until', whole(held_until))
end
if leader[1] and leader[1] ~= ARGV[1] and held_until > now then
  local log = redis.pcall('HMGET', KEYS[2], 'birth', 'sequence', 'last_id')
  return {0, held_until - now, log[1] or '', log[2] or '', log[3] or '', 0, now, 0, '', '', '', 0}
end
local ran_out, before, before_epoch = '', leader[1] or '', leader[2] or '0'
if leader[1] == ARGV[1] then
  -- The same command again after a lost reply.
  ran_out, before, before_epoch = leader[5] or '', leader[6] or '', leader[7] or '0'
elseif leader[1] and held_until > 0 then
  ran_out = leader[1]
end
local epoch = last_epoch + 1
call('HSET', KEYS[1], 'holder', ARGV[1], 'epoch', epoch, 'until', whole(now + ARGV[2]), 'lease', ARGV[2],
  'after', ran_out, 'before', before, 'before_epoch', before_epoch)
local mended, newest = mend_log(KEYS[2], KEYS[3])
if call('HEXISTS', KEYS[2], 'birth') == 0 then
  -- The low-water mark is this moment, and never below what bridges wrote before (ids keep growing).
  local low_water_mark = whole(now) .. '-0'
  for _, id in ipairs({newest, ARGV[4]}) do
    local ms, counter = id_parts(id)
    -- Above it, not at it: a cursor at the old log's end does not belong to the new log.
    local above = whole(ms) .. '-' .. whole(counter + 1)
    if ms >= now and ms < 2 ^ 53 and is_above(above, low_water_mark) then low_water_mark = above end
  end
  -- Consumer groups stay: consumers may make them, and the stream with them, before the bridge ever runs.
  call('XTRIM', KEYS[3], 'MAXLEN', 0)
  call('HSET', KEYS[2], 'birth', ARGV[3], 'sequence', 0, 'last_id', low_water_mark, 'floor', low_water_mark,
    'floor_sequence', 0, 'trimmed', 0, 'born_at', whole(now))
end
local meta = call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id', 'born_at')
-- Compared, so that it is also right when this is the same command again after a lost reply.
local new_log = meta[1] == ARGV[3] and 1 or 0
return {epoch, 0, meta[1], tonumber(meta[2]), meta[3], new_log, now, math.max(0, now - tonumber(meta[4] or '0')),
  ran_out, mended, before, number(before_epoch, 1e12) or 0}
