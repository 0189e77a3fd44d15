-- Queue deliveries that a caller asked for; behind `delivered_marks.lua`. KEYS: webhooks, meta. ARGV: limits, wake channel, what, endpoint, then
--   retry, cancel: delivery; recover, replay: event id, ran, JSON, cvm id, sequence in turns;
--   test: event id, JSON.
-- Returns {'unknown'|'pending'|'disabled'|'busy'|'finished', 0, 0} or {'done', queued, how many of the events were looked at}.
local what, E, queued, looked = ARGV[3], ARGV[4], 0, 0
local status, lane
if what == 'retry' or what == 'cancel' then
  local known = call('HMGET', of('delivery', ARGV[5]), 's', 'c')
  status, lane = known[1], known[2]
  if not status then return {'unknown', 0, 0} end
end
if call('HEXISTS', P .. ':endpoints', E) == 0 then return {'unknown', 0, 0} end
if what ~= 'cancel' and disabled(E) then return {'disabled', 0, 0} end

local function is_head() return call('LINDEX', lane_key(E, lane), 0) == ARGV[5] end

-- Whether a dispatcher has the lane of this delivery, and may be attempting it.
local function is_lent()
  local lease = is_head() and call('ZSCORE', of('busy', E), lane)
  return lease and tonumber(lease) > now
end

-- A pending delivery's wait ends, if it is the next of its lane. An open breaker asks the receiver at once.
local function hasten()
  if not is_head() or is_lent() then return 'pending' end
  give_back(E, lane)
  call('ZADD', of('due', E), whole(now), lane)
  call('HDEL', of('health', E), 'probe_at')
end

-- Done twice it is done once.
local function cancel()
  if status == 'skipped' then return end
  if status ~= 'pending' then return 'finished' end
  if is_lent() then return 'busy' end
  local head = is_head()
  if head then give_back(E, lane) end
  take_out(E, lane, ARGV[5], head)
  list_as(E, ARGV[5], 'skipped')
end

local function again(E, id)
  local was = call('HMGET', of('delivery', id), 's', 'c', 'a')
  if was[1] == 'delivered' then mark_delivered(E, {string.sub(id, #E + 2)}) end
  if was[3] then call('RPUSH', of('attempts', id), was[3]) end
  call('ZREM', of(was[1], E), id)
  call('HSET', of('delivery', id), 's', 'pending', 'k', 0)
  call('HDEL', of('delivery', id), 'fin', 'r', 'a')
  enqueue(E, was[2], id)
end

-- What is told as a replay was delivered before, or is part of a period that a caller wants whole.
local function mark_replay(id) call('HSET', of('delivery', id), 'r', 1) end

-- `replay` queues what was delivered too, `recover` only what was not.
local function recover(i)
  local event, cvm, id = ARGV[i], ARGV[i + 3], E .. '-' .. ARGV[i]
  local was = call('HGET', of('delivery', id), 's') or was_delivered(E, tonumber(ARGV[i + 4])) and 'delivered'
  if was == 'pending' or was == 'delivered' and what ~= 'replay' then return 0 end
  call('HSET', of('event', event), 'ran', ARGV[i + 1], 'json', ARGV[i + 2], 'seq', ARGV[i + 4])
  if make(E, cvm, event, 'pending') then enqueue(E, cvm, id) else again(E, id) end
  if what == 'replay' then mark_replay(id) end
  return 1
end

if what == 'cancel' or status == 'pending' then
  local refused = (what == 'cancel' and cancel or hasten)()
  if refused then return {refused, 0, 0} end
elseif what == 'retry' then
  again(E, ARGV[5])
  if status == 'delivered' then mark_replay(ARGV[5]) end
  queued = 1
elseif what == 'test' then
  -- The same test again is the one that there is.
  local id = make(E, TEST_LANE, ARGV[5], 'pending')
  if id then
    call('HSET', of('event', ARGV[5]), 'ran', 0, 'json', ARGV[6])
    enqueue(E, TEST_LANE, id)
  end
  call('HDEL', of('health', E), 'probe_at')
  queued = 1
else
  for i = 5, #ARGV, 5 do
    if call('ZCARD', of('pending', E)) >= L.pending then break end
    queued = queued + recover(i)
    looked = looked + 1
  end
end
rescore(E)
release_events()
keep_stamp()
call('PUBLISH', ARGV[2], what)
return {'done', queued, looked}
