-- Queue deliveries that a caller asked for. KEYS: webhooks, meta. ARGV: limits, wake channel, what, endpoint, then
--   retry: delivery; recover: event id, ran, JSON, cvm id in turns; test: event id, JSON.
-- Returns {'unknown'|'pending'|'disabled', 0, 0} or {'done', queued, how many of the events were looked at}.
local what, E, queued, looked = ARGV[3], ARGV[4], 0, 0
if what == 'retry' then
  local status = call('HGET', of('delivery', ARGV[5]), 's')
  if not status then return {'unknown', 0, 0} end
  if status == 'pending' then return {'pending', 0, 0} end
end
if call('HEXISTS', P .. ':endpoints', E) == 0 then return {'unknown', 0, 0} end
if disabled(E) then return {'disabled', 0, 0} end

local function recover(i)
  call('HSET', of('event', ARGV[i]), 'ran', ARGV[i + 1], 'json', ARGV[i + 2])
  local id = make(E, ARGV[i + 3], ARGV[i], 'pending')
  if id then
    enqueue(E, ARGV[i + 3], id)
    return 1
  end
  id = E .. '-' .. ARGV[i]
  local status = call('HGET', of('delivery', id), 's')
  if status ~= 'given_up' and status ~= 'skipped' then return 0 end
  again(E, id)
  return 1
end

if what == 'retry' then
  again(E, ARGV[5])
  queued = 1
elseif what == 'test' then
  call('HSET', of('event', ARGV[5]), 'ran', 0, 'json', ARGV[6])
  local id = make(E, TEST_LANE, ARGV[5], 'pending')
  if id then enqueue(E, TEST_LANE, id) end
  call('HDEL', of('health', E), 'probe_at')
  queued = 1
else
  for i = 5, #ARGV, 4 do
    if call('ZCARD', of('pending', E)) >= L.pending then break end
    queued = queued + recover(i)
    looked = looked + 1
  end
end
rescore(E)
keep_stamp()
call('PUBLISH', ARGV[2], what)
return {'done', queued, looked}
