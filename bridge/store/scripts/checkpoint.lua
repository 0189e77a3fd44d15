-- The position up to which the log was read for webhooks. KEYS: webhooks, the log's meta. ARGV: limits.
-- Returns {log id, position, partial, revision, the log's last id, its low-water mark, trimmed (1/0)}, or {} without a
-- log.
local meta = call('HMGET', KEYS[2], 'birth', 'last_id', 'floor', 'trimmed')
if not meta[1] then return {} end
local checkpoint = call('HMGET', P, 'birth', 'position', 'partial', 'revision')
if call('HLEN', P .. ':endpoints') == 0 then
  -- No endpoint waits for an event.
  if checkpoint[2] then call('HSET', P, 'birth', meta[1], 'position', meta[2], 'partial', '') end
  return {meta[1], meta[2], '', checkpoint[4] or '0', meta[2], meta[3], meta[4]}
end
if checkpoint[1] ~= meta[1] or not checkpoint[2] then
  -- A new log is read from its beginning.
  checkpoint[1], checkpoint[2], checkpoint[3] = meta[1], meta[3], ''
  call('HSET', P, 'birth', meta[1], 'position', meta[3], 'partial', '')
end
return {checkpoint[1], checkpoint[2], checkpoint[3] or '', checkpoint[4] or '0', meta[2], meta[3], meta[4]}
