-- Whether a dispatcher is needed, and when one was last at work. KEYS: webhooks. ARGV: limits.
-- Returns {enabled endpoints, ms when a dispatcher was last seen ('' never), ms now}.
local function size(suffix)
  local found = redis.pcall('HLEN', P .. suffix)
  return type(found) == 'number' and found or 0
end
local seen = redis.pcall('HGET', P, 'seen')
return {size(':endpoints') - size(':disabled'), type(seen) == 'string' and count(seen) and seen or '', whole(now)}
