-- Write one event, or two of the same CVM: fence, number, log, low-water mark, snapshot and publication in one step.
-- KEYS: leader, meta, log, state, watches, pins, webhooks, webhook endpoints, notices.
-- ARGV: 1 holder, 2 epoch, 3 log id, 4 sequence of the first, 5 highest id in use, 6 event JSON without id, 7 cvm id,
--   8 snapshot JSON without its closing brace ('' deletes it and the watch), 9 log length, 10 events channel,
--   11 the CVM's channel ('': it is about none), 12 ran before (1/0),
--   13 for a dropped watch: if wanted since this time (ms), it is kept ('': the snapshot is deleted and the watch is
--   kept), 14 and 15 sequence and id of the event that it follows, 16 the second event's JSON without id, or '': its
--   number is the next one,
--   17 if the event is made of a notice: its id, or ''. The notice is removed; snapshots and watches stay as they are,
--   18 the id of an entry up to which every consumer group has read, if there are any, or '', 19 the most groups listed.
-- Returns {id of the last, id of the first, entries trimmed although webhooks had not read them, the same of groups:
-- {{name of the group, entries}…; no name: there are too many groups}}, or {'', why};
-- with why 'lost' also sequence and id of the last event that is there. After a lost reply: {id of the last}.
-- The meta hash calls the log id `birth` and the low-water mark `floor`: see store/keys.py.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {'', 'fenced'} end
-- Before the first write: a key of another type would end this step in its middle.
for i, kind in pairs({[3] = 'stream', [4] = 'hash', [5] = 'zset', [9] = 'stream'}) do
  local found = call('TYPE', KEYS[i]).ok
  if found ~= kind and found ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. found) end
end
local meta = call('HMGET', KEYS[2], 'birth', 'sequence', 'last_id', 'writer')
if meta[1] ~= ARGV[3] then return {'', 'replaced'} end
local sequence = tonumber(ARGV[4])
local events = {ARGV[6], ARGV[16] ~= '' and ARGV[16] or nil}
local last_sequence = sequence + #events - 1
local writer = ARGV[1] .. ':' .. ARGV[2]
if tonumber(meta[2]) >= sequence then
  -- The same command again after a lost reply: it is done already. If the same writer wrote another event, it gave up
  -- waiting for that answer and has lost its position: it must begin a new term.
  if tonumber(meta[2]) == last_sequence and meta[4] == writer then
    local written = call('XRANGE', KEYS[3], meta[3], meta[3])[1]
    local same = not written
    for i = 1, written and #written[2] or 0, 2 do
      if written[2][i] == 'event' and written[2][i + 1] == events[#events] then same = true end
    end
    if same then return {meta[3]} end
  end
  return {'', 'foreign'}
end
-- A promoted replica or a restarted server lacks the last events.
if tonumber(meta[2]) ~= tonumber(ARGV[14]) or meta[3] ~= ARGV[15] then return {'', 'lost', meta[2], meta[3]} end
if ARGV[8] == '' and ARGV[13] ~= '' then
  local wanted = tonumber(call('ZSCORE', KEYS[5], ARGV[7]) or '0')
  if wanted > tonumber(ARGV[13]) or call('SISMEMBER', KEYS[6], ARGV[7]) == 1 then return {'', 'wanted'} end
end

-- Trimming waits for what webhooks and consumer groups have read, up to ten times the length.
local keep, gone, webhooks, losses = tonumber(ARGV[9]), {}, nil, {}
local groups = ARGV[18] ~= '' and ARGV[18] or nil
local function unread(position)
  if not position then return 0 end
  local ms, counter = id_parts(position)
  for i, entry in ipairs(gone) do
    local entry_ms, entry_counter = id_parts(entry[1])
    if entry_ms > ms or (entry_ms == ms and entry_counter > counter) then return #gone - i + 1 end
  end
  return 0
end
local function oldest(last, count)
  local found = redis.pcall('XRANGE', KEYS[3], '-', last, 'COUNT', count)
  return found.err and {} or found  -- `last` has too many digits: the bridge did not write it
end
-- `coming`: events that are still to be written.
local function trim(coming)
  local length = call('XLEN', KEYS[3])
  local most, forced = math.min(length + coming - keep, 1000), math.min(length + coming - 10 * keep, 1000)
  if most <= 0 then return end
  if call('EXISTS', KEYS[8]) == 1 then
    local checkpoint = redis.pcall('HMGET', KEYS[7], 'position', 'birth')  -- of another type: nothing was read
    webhooks = checkpoint[2] == ARGV[3] and string.match(checkpoint[1] or '', '^%d+%-%d+$') or '0-0'
  end
  -- No more than what may go: while a reader lags, that is little, and this step blocks the server.
  gone = oldest(webhooks or groups or '+', most)
  if webhooks and groups and #gone > 0 then gone = oldest(groups, #gone) end
  if #gone < forced then gone = oldest('+', forced) end
  if #gone == 0 then return end
  -- The low-water mark is the newest entry that was trimmed: a cursor below it has missed events.
  local last, number = gone[#gone], '0'
  call('XTRIM', KEYS[3], 'MAXLEN', '=', length - #gone)
  for i = 1, #last[2], 2 do
    if last[2][i] == 'event' then number = string.match(last[2][i + 1], '"sequence":"0*(%d+)"') or '0' end
  end
  call('HSET', KEYS[2], 'floor', last[1], 'floor_sequence', number, 'trimmed', 1)
  if unread(groups) == 0 then return end
  -- The position that was passed may be some seconds old: what each group has read now decides.
  local listed = groups_of(KEYS[3], tonumber(ARGV[19]))
  if not listed then losses[1] = {'', unread(groups)} end
  for _, group in ipairs(listed or {}) do
    local count = unread(group['last-delivered-id'])
    if count > 0 then losses[#losses + 1] = {printable_name(group), count} end
  end
end

-- Ids grow even when a clock stepped back or a replica without the last writes was promoted.
local ms, counter = id_parts(meta[3])
local other_ms, other_counter = id_parts(ARGV[5])
if other_ms > ms or (other_ms == ms and other_counter > counter) then ms, counter = other_ms, other_counter end
-- Not '*': the time that XADD uses may lie a millisecond before what TIME returned.
if now > ms then ms, counter = now, -1 end
local ids, full = {}, false
for i, event in ipairs(events) do
  local function add(id) return redis.pcall('XADD', KEYS[3], id, 'event', event, 'ran', ARGV[12]) end
  local id = add(whole(ms) .. '-' .. whole(counter + i))
  if i == 1 and type(id) == 'table' and string.find(tostring(id.err), 'OOM', 1, true) then
    -- A full server takes no entry before something has gone; after that it takes what this step writes.
    full = true
    trim(#events)
    id = add(whole(ms) .. '-' .. whole(counter + i))
  end
  -- An entry that the bridge did not write is above it.
  if type(id) == 'table' then id = call('XADD', KEYS[3], '*', 'event', event, 'ran', ARGV[12]) end
  ids[i] = id
end
local id = ids[#ids]
call('HSET', KEYS[2], 'sequence', whole(last_sequence), 'last_id', id, 'writer', writer)
if not full then trim(0) end

if ARGV[17] ~= '' then
  call('XDEL', KEYS[9], ARGV[17])
elseif ARGV[8] == '' then
  call('HDEL', KEYS[4], ARGV[7])
  if ARGV[13] ~= '' then call('ZREM', KEYS[5], ARGV[7]) end
else
  call('HSET', KEYS[4], ARGV[7], ARGV[8] .. ',"event_id":"' .. id .. '"}')
end
for i, event in ipairs(events) do
  local message = '{"id":"' .. ids[i] .. '",' .. string.sub(event, 2)
  call('PUBLISH', ARGV[10], message)
  if ARGV[11] ~= '' then call('PUBLISH', ARGV[11], message) end
end
return {id, ids[1], unread(webhooks), losses}
