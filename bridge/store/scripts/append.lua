-- Write one event: fence, number, log, floor, snapshot and publication in one step.
-- KEYS: leader, meta, log, state, watches, pins, webhooks, webhook endpoints.
-- ARGV: 1 holder, 2 epoch, 3 birth, 4 sequence, 5 lowest id (the leader's last), 6 event JSON without id, 7 cvm id,
--   8 snapshot JSON without its closing brace ('' deletes it and the watch), 9 log length, 10 events channel,
--   11 the CVM's channel, 12 ran before (1/0), 13 for a dropped watch: wanted since this score (ms) keeps it.
-- Returns {id, entries trimmed although webhooks had not read them}, or {'', why}.
local leader = redis.call('HMGET', KEYS[1], 'holder', 'epoch')
if leader[1] ~= ARGV[1] or leader[2] ~= ARGV[2] then return {'', 'fenced'} end
local meta = redis.call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id', 'writer')
if meta[1] ~= ARGV[3] then return {'', 'fenced'} end
local sequence = tonumber(ARGV[4])
local writer = ARGV[1] .. ':' .. ARGV[2]
if tonumber(meta[2]) >= sequence then
  -- The same command again after a lost reply: it is done already. Another event by the same writer: nobody awaited
  -- the answer for the one that is there, so the writer does not know where it stands, and begins a new term.
  if tonumber(meta[2]) == sequence and meta[4] == writer then
    local written = redis.call('XRANGE', KEYS[3], meta[3], meta[3])[1]
    local same = not written
    for i = 1, written and #written[2] or 0, 2 do
      if written[2][i] == 'event' and written[2][i + 1] == ARGV[6] then same = true end
    end
    if same then return {meta[3]} end
  end
  return {'', 'fenced'}
end
if ARGV[8] == '' then
  local wanted = tonumber(redis.call('ZSCORE', KEYS[5], ARGV[7]) or '0')
  if wanted > tonumber(ARGV[13]) or redis.call('SISMEMBER', KEYS[6], ARGV[7]) == 1 then return {'', 'wanted'} end
end

-- Ids grow even when a clock stepped back or a replica without the last writes was promoted.
local function parts(id)
  local ms, counter = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms or '0'), tonumber(counter or '0')
end
local ms, counter = parts(meta[3])
local other_ms, other_counter = parts(ARGV[5])
if other_ms > ms or (other_ms == ms and other_counter > counter) then ms, counter = other_ms, other_counter end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Not '*': XADD's idea of now is the script's start, which may lie a millisecond before what TIME says.
if now > ms then ms, counter = now, -1 end
local id = redis.pcall('XADD', KEYS[3], string.format('%.0f-%.0f', ms, counter + 1), 'event', ARGV[6], 'ran', ARGV[12])
-- Somebody else's entry is above it.
if type(id) == 'table' then id = redis.call('XADD', KEYS[3], '*', 'event', ARGV[6], 'ran', ARGV[12]) end
redis.call('HSET', KEYS[2], 'sequence', ARGV[4], 'last_id', id, 'writer', writer)

-- While there are webhook endpoints, trimming waits for what they have read, up to ten times the length.
local length, keep, unread = redis.call('XLEN', KEYS[3]), tonumber(ARGV[9]), 0
local going = math.min(length - keep, 1000)
if going > 0 and redis.call('EXISTS', KEYS[8]) == 1 then
  local place = redis.call('HMGET', KEYS[7], 'position', 'birth')
  local read_ms, read_counter = parts(place[2] == ARGV[3] and place[1] or '0-0')
  local read, first = 0, redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)
  local function is_read(entry)
    local entry_ms, entry_counter = parts(entry[1])
    return entry_ms < read_ms or (entry_ms == read_ms and entry_counter <= read_counter)
  end
  if is_read(first[1]) then
    local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', going)
    while oldest[read + 1] and is_read(oldest[read + 1]) do read = read + 1 end
  end
  unread = math.max(math.min(length - 10 * keep, going) - read, 0)
  going = read + unread
end

-- The floor is the newest entry that is gone: a cursor below it has lost events.
if going > 0 then
  local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', going)
  local last = oldest[#oldest]
  redis.call('XTRIM', KEYS[3], 'MAXLEN', '=', length - #oldest)
  local number = '0'
  for i = 1, #last[2], 2 do
    if last[2][i] == 'event' then number = string.match(last[2][i + 1], '"sequence":"0*(%d+)"') or '0' end
  end
  redis.call('HSET', KEYS[2], 'floor', last[1], 'floor_sequence', number, 'trimmed', 1)
end

if ARGV[8] == '' then
  redis.call('HDEL', KEYS[4], ARGV[7])
  redis.call('ZREM', KEYS[5], ARGV[7])
else
  redis.call('HSET', KEYS[4], ARGV[7], ARGV[8] .. ',"event_id":"' .. id .. '"}')
end
local message = '{"id":"' .. id .. '",' .. string.sub(ARGV[6], 2)
redis.call('PUBLISH', ARGV[10], message)
redis.call('PUBLISH', ARGV[11], message)
return {id, unread}
