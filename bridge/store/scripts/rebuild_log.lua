-- Where a stranger's entry has the highest id, so that none can follow: move the bridge's own entries, with their ids,
-- to a stream of their own that takes the log's place. One call moves a part, and renews the lease.
-- KEYS: leader, meta, log, the new stream, webhooks. ARGV: holder, epoch, where to go on ('-' at first), entries at once.
-- Returns {1, where to go on ('' at the end)}, {2, ''}: there was nothing to do, or {0, ''}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {0, ''} end
if ARGV[3] == '-' then
  local is_there = call('EXISTS', KEYS[3]) == 1
  if not is_there or is_id(fields_of(call('XINFO', 'STREAM', KEYS[3]))['last-generated-id']) then return {2, ''} end
  call('DEL', KEYS[4])
end
call('HSET', KEYS[1], 'until', whole(now + call('HGET', KEYS[1], 'lease')))
local meta = call('HMGET', KEYS[2], 'last_id', 'birth')
local last = meta[1]
local entries = call('XRANGE', KEYS[3], ARGV[3], last, 'COUNT', ARGV[4])
for _, entry in ipairs(entries) do
  if own_number(entry) then call('XADD', KEYS[4], entry[1], unpack(entry[2])) end
end
if #entries == tonumber(ARGV[4]) and is_above(last, entries[#entries][1]) then
  return {1, '(' .. entries[#entries][1]}
end
-- No reader's position stays above what can follow.
for _, group in ipairs(groups_of(KEYS[3], math.huge)) do
  local delivered = group['last-delivered-id']
  call('XGROUP', 'CREATE', KEYS[4], group.name, is_above(delivered, last) and last or delivered, 'MKSTREAM')
end
local checkpoint = redis.pcall('HMGET', KEYS[5], 'birth', 'position')
if checkpoint[1] == meta[2] and string.match(checkpoint[2] or '', '^%d+-%d+$') and is_above(checkpoint[2], last) then
  call('HSET', KEYS[5], 'position', last)
end
call('DEL', KEYS[3])
if call('EXISTS', KEYS[4]) == 1 then call('RENAME', KEYS[4], KEYS[3]) end
return {1, ''}
