-- Where the log has been read to for webhooks. KEYS: webhooks, the log's meta. ARGV: limits.
-- Returns {birth, position, partial, revision, the log's last id, its floor, trimmed (1/0)}, or {} without a log.
local meta = call('HMGET', KEYS[2], 'birth', 'last_id', 'floor', 'trimmed')
if not meta[1] then return {} end
local place = call('HMGET', P, 'birth', 'position', 'partial', 'revision')
if call('HLEN', P .. ':endpoints') == 0 then
  -- Nobody waits for anything.
  if place[2] then call('HSET', P, 'birth', meta[1], 'position', meta[2], 'partial', '') end
  return {meta[1], meta[2], '', place[4] or '0', meta[2], meta[3], meta[4]}
end
if place[1] ~= meta[1] or not place[2] then
  -- A log born anew is read from its beginning.
  place[1], place[2], place[3] = meta[1], meta[3], ''
  call('HSET', P, 'birth', meta[1], 'position', meta[3], 'partial', '')
end
return {place[1], place[2], place[3] or '', place[4] or '0', meta[2], meta[3], meta[4]}
