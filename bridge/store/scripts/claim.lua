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

-- Lanes that may be lent now, at most `room`. Where nothing holds the endpoint back, also what is due after them (nil
-- for nothing).
local function available(E, held, room)
  if held.from > now then return {} end
  if held.not_before > now then return test_is_due(E) and {TEST_LANE} or {} end
  if held.open then return held.probe_at > now and {} or probe(E) end
  local lanes, due = {}, call('ZRANGE', of('due', E), 0, room, 'WITHSCORES')
  for i = 1, 2 * room, 2 do
    if not due[i] or tonumber(due[i + 1]) > now then break end
    lanes[#lanes + 1] = due[i]
  end
  return lanes, tonumber(due[2 * #lanes + 2])
end

-- `ran` and JSON, read once however many lanes have this event next: a state may have a megabyte.
local function read_event(event)
  if not read[event] then
    read[event] = call('HMGET', of('event', event), 'ran', 'json')
    bytes = bytes + #(read[event][2] or '')
  end
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

-- What is told of a lane's head; nil for an empty lane.
local function next_claim(E, lane)
  local id, delivery = head(E, lane)
  if not id then return nil end
  local failures = whole(count(delivery[2]) or error('its failures are not an integer', 0))
  return {E, lane, id, delivery[1], failures, delivery[3] and 1 or 0}
end

-- Returns how many of the lanes are lent: fewer where one is damaged or empty, or the reply is long enough.
local function lend(E, lanes)
  local looked, own, leases, tokens = {}, {}, {}, {}
  for _, lane in ipairs(lanes) do
    if bytes >= L.claim_bytes then break end
    local fine, claim = guarded(E, lane, next_claim, E, lane)
    if fine then looked[#looked + 1] = lane else quarantine(E, lane) end
    if fine and claim then
      own[#own + 1] = claim
      leases[2 * #own - 1], leases[2 * #own] = until_ms, lane
      tokens[2 * #own - 1], tokens[2 * #own] = lane, token
    end
  end
  if looked[1] then call('ZREM', of('due', E), unpack(looked)) end
  if own[1] then
    call('ZADD', of('busy', E), unpack(leases))
    call('HSET', of('claims', E), unpack(tokens))
  end
  for _, claim in ipairs(own) do
    for _, value in ipairs(claim) do claims[#claims + 1] = value end
    local event, n = claim[4], #events
    if not seen[event] then
      seen[event] = true
      events[n + 1], events[n + 2], events[n + 3] = event, unpack(read_event(event))
    end
  end
  lent = lent + #own
  return #own
end

-- Leases that ran out: their dispatcher is dead, frozen or cut off. Returns how many still run, and when the first of
-- them ends.
local function end_leases(E)
  local leases, ended = call('ZRANGE', of('busy', E), 0, -1, 'WITHSCORES'), 0
  for i = 1, #leases, 2 do
    if tonumber(leases[i + 1]) > now then return #leases / 2 - ended, tonumber(leases[i + 1]) end
    give_back(E, leases[i])
    call('ZADD', of('due', E), whole(now), leases[i])
    ended = ended + 1
  end
  return 0
end

-- Returns when one of its lanes can be claimed next.
local function borrow(E, none)
  local busy, first_lease = 0
  if not none.busy then busy, first_lease = end_leases(E) end
  local held = gate(E, busy, none)
  local room, lanes, first_due = math.min(held.room, share - busy, most - lent, held.at_once), {}
  if room > 0 then lanes, first_due = available(E, held, room) end
  local own = lend(E, lanes)
  if held.rate and own > 0 then
    call('HSET', of('health', E), 'paced', whole(now + math.ceil(own * 1000 / held.rate)))
  end
  local at
  if held.room > 0 and (own == 0 or own < #lanes or held.rate or held.open or held.not_before > now) then
    at = first_moment(E, {})
  elseif not disabled(E) then
    held.room = held.room - own
    if own > 0 then first_lease = math.min(first_lease or now + lease, now + lease) end
    at = earliest(E, first_lease, first_due, held)
  end
  -- One that has its share: other endpoints go first until one of its attempts ends or there may be more room.
  if at and share < L.concurrency and busy + own >= share then at = math.max(at, now + L.share_ms) end
  return at
end

local due, moments = call('ZRANGEBYSCORE', P .. ':due', '-inf', whole(now), 'LIMIT', 0, most), {}
if due[1] then
  write_although_full()
  read_disabled(due)
  local none = {busy = not is_any('busy', due), health = not is_any('health', due)}
  for _, E in ipairs(due) do
    if lent >= most or bytes >= L.claim_bytes then break end
    moments[E] = next_moment(E, borrow, none)
  end
  place(moments)
end
release_events()
local first = call('ZRANGE', P .. ':due', 0, 0, 'WITHSCORES')
local wait = first[2] and math.min(math.max(tonumber(first[2]) - now, 0), 1e9) or -1
return {current_revision(), whole(wait), claims, events, broken}
