-- Lend lanes that are due to one dispatcher. KEYS: webhooks. ARGV: limits, token, lease ms, most lanes, most lanes lent
--   of one endpoint.
-- Returns {revision, ms until something is due (-1: nothing), claims, events, broken}: claims are flat, endpoint, lane,
-- delivery, event, failures so far, replay (1/0); events are flat, id, ran, JSON, each once.
local token, lease, most, share = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local until_ms, claims, events, read, seen, bytes, lent = whole(now + lease), {}, {}, {}, {}, 0, 0

local function test_is_due(E)
  local at = call('ZSCORE', of('due', E), TEST_LANE)
  return at and tonumber(at) <= now
end

-- The lane of the oldest delivery among those that have been due for longest; a requested test goes first.
local function probe(E)
  if test_is_due(E) then return {TEST_LANE} end
  local oldest, chosen
  for _, lane in ipairs(call('ZRANGEBYSCORE', of('due', E), '-inf', whole(now), 'LIMIT', 0, 100)) do
    local id = redis.pcall('LINDEX', lane_key(E, lane), 0)
    local at = type(id) == 'string' and tonumber(call('ZSCORE', of('pending', E), id) or '0') or 0
    if not oldest or at < oldest then oldest, chosen = at, lane end
  end
  return {chosen}
end

-- The lanes that may be lent now, and the endpoint's rate.
local function available(E)
  local busy = call('ZCARD', of('busy', E))
  local held = gate(E, busy)
  local room = math.min(held.room, share - busy, most - lent, held.at_once)
  if room <= 0 or held.from > now then return {} end
  if held.not_before > now then return test_is_due(E) and {TEST_LANE} or {}, held.rate end
  if held.open then return held.probe_at > now and {} or probe(E), held.rate end
  return call('ZRANGEBYSCORE', of('due', E), '-inf', whole(now), 'LIMIT', 0, room), held.rate
end

-- `ran` and JSON, read once however many lanes have this event next: a state may have a megabyte.
local function read_event(event)
  read[event] = read[event] or call('HMGET', of('event', event), 'ran', 'json')
  return read[event]
end

-- The head of a lane. Drops deliveries whose event was removed by something other than the bridge: they would block
-- the lane for ever.
local function head(E, lane)
  local id = call('LINDEX', lane_key(E, lane), 0)
  while id do
    local delivery = call('HMGET', of('delivery', id), 'v', 'k', 'r')
    local event = delivery[1] and read_event(delivery[1])
    if event and event[2] then return id, delivery, event end
    call('LPOP', lane_key(E, lane))
    forget(E, 'pending', {id})
    id = call('LINDEX', lane_key(E, lane), 0)
  end
end

local function lend(E, lane)
  call('ZREM', of('due', E), lane)
  local id, delivery, event = head(E, lane)
  if not id then return end
  local failures = whole(count(delivery[2]) or error('its failures are not an integer', 0))
  call('ZADD', of('busy', E), until_ms, lane)
  call('HSET', of('claims', E), lane, token)
  local n = #claims
  claims[n + 1], claims[n + 2], claims[n + 3], claims[n + 4], claims[n + 5] = E, lane, id, delivery[1], failures
  claims[n + 6] = delivery[3] and 1 or 0
  lent = lent + 1
  if not seen[delivery[1]] then
    seen[delivery[1]] = true
    n = #events
    events[n + 1], events[n + 2], events[n + 3] = delivery[1], event[1], event[2]
    bytes = bytes + #event[2]
  end
end

local function borrow(E)
  -- Leases that ran out: their dispatcher is dead, frozen or cut off.
  for _, lane in ipairs(call('ZRANGEBYSCORE', of('busy', E), '-inf', whole(now))) do
    give_back(E, lane)
    call('ZADD', of('due', E), whole(now), lane)
  end
  local lanes, rate = available(E)
  local before = lent
  for _, lane in ipairs(lanes) do
    if bytes >= L.claim_bytes then break end
    if not guarded(E, lane, lend, E, lane) then quarantine(E, lane) end
  end
  if rate and lent > before then
    call('HSET', of('health', E), 'paced', whole(now + math.ceil((lent - before) * 1000 / rate)))
  end
  rescore(E)
  if share < L.concurrency and call('ZCARD', of('busy', E)) >= share then
    -- It has its share: other endpoints go first until one of its attempts ends or there may be more room.
    call('ZADD', P .. ':due', 'XX', 'GT', whole(now + L.share_ms), E)
  end
end

local due = call('ZRANGEBYSCORE', P .. ':due', '-inf', whole(now), 'LIMIT', 0, most)
if due[1] then write_although_full() end
for _, E in ipairs(due) do
  if lent >= most or bytes >= L.claim_bytes then break end
  apart(E, borrow)
end
release_events()
local first = call('ZRANGE', P .. ':due', 0, 0, 'WITHSCORES')
local wait = first[2] and math.min(math.max(tonumber(first[2]) - now, 0), 1e9) or -1
return {current_revision(), whole(wait), claims, events, broken}
