-- Where a stranger's entry has the highest id, so that none can follow: move the bridge's own entries, with their ids,
-- to a stream of their own that takes the log's place. One call moves a part, and renews the lease.
-- KEYS: leader, meta, log, the new stream, webhooks. ARGV: holder, epoch, where to go on ('-' at first), entries at once.
-- Returns {1, where to go on ('' at the end)}, {2, ''}: there was nothing to do, or {0, ''}: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return {0, ''} end
if ARGV[3] == '-' then
  local info, last_generated = call('EXISTS', KEYS[3]) == 1 and call('XINFO', 'STREAM', KEYS[3]) or {}, '0-0'
  for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last_generated = info[i + 1] end end
  if is_id(last_generated) then return {2, ''} end
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
for _, group in ipairs(call('XINFO', 'GROUPS', KEYS[3])) do
  local about = {}
  for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
  local delivered = about['last-delivered-id']
  call('XGROUP', 'CREATE', KEYS[4], about.name, is_above(delivered, last) and last or delivered, 'MKSTREAM')
end
local checkpoint = redis.pcall('HMGET', KEYS[5], 'birth', 'position')
if checkpoint[1] == meta[2] and string.match(checkpoint[2] or '', '^%d+-%d+$') and is_above(checkpoint[2], last) then
  call('HSET', KEYS[5], 'position', last)
end
call('DEL', KEYS[3])
if call('EXISTS', KEYS[4]) == 1 then call('RENAME', KEYS[4], KEYS[3]) end
return {1, ''}
