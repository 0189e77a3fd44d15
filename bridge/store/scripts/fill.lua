-- Queue events for endpoints and move the position, if it is the one that the caller read from; behind
-- `delivered_marks.lua`.
-- KEYS: webhooks, the log's meta. ARGV: limits, log id, position, partial, revision, new position, new partial;
--   then per event: id, ran (1/0), JSON, cvm id, sequence, number of endpoints, their ids.
-- `partial`: the endpoint up to which (by name) the event behind the position has been queued already.
-- Returns {1, queued, skipped for disabled endpoints, skipped beyond the most that may wait, broken}, or {0}.
local checkpoint = call('HMGET', P, 'birth', 'position', 'partial', 'revision', 'seen', 'stamp')
if call('HGET', KEYS[2], 'birth') ~= ARGV[2] or checkpoint[1] ~= ARGV[2] or checkpoint[2] ~= ARGV[3]
  or (checkpoint[3] or '') ~= ARGV[4] or (checkpoint[4] or '0') ~= ARGV[5] then return {0} end
stamp = count(checkpoint[6]) or 0
local queued, skipped, beyond = 0, 0, 0
local names, wanted = {}, {}  -- the endpoints, and what each wants, in the order of the events
local due_anew = {}  -- endpoints that have a lane more to claim

-- All that an endpoint wants, of which it has nothing yet.
local function queue_all(E, status)
  local listed, lanes, waiting, due = {}, {}, {}, {}
  for n, each in ipairs(wanted[E]) do
    local id, lane = E .. '-' .. each.event, each.cvm
    call('HSET', of('delivery', id), 'e', E, 'c', lane, 'v', each.event, 's', status, 'k', 0, 'at', whole(now),
      unpack(status == 'skipped' and {'fin', whole(now)} or {}))
    listed[2 * n - 1], listed[2 * n] = each.stamp, id
    if not waiting[lane] then lanes[#lanes + 1], waiting[lane] = lane, {} end
    table.insert(waiting[lane], id)
  end
  call('ZADD', of(status, E), unpack(listed))
  if status == 'skipped' then
    trim(E)
    skipped = skipped + #wanted[E]
    return
  end
  for _, lane in ipairs(lanes) do
    if call('RPUSH', lane_key(E, lane), unpack(waiting[lane])) == #waiting[lane] then
      due[#due + 1], due[#due + 2] = whole(now), lane
    end
  end
  if due[1] then call('ZADD', of('due', E), unpack(due)) end
  queued, due_anew[E] = queued + #wanted[E], due[1] and true
end

local function deliver(E, cvm, event, status)
  local id = make(E, cvm, event, status)
  if id and status == 'skipped' then
    list_as(E, id, 'skipped')
    skipped = skipped + 1
  elseif id then
    enqueue(E, cvm, id)
    queued, due_anew[E] = queued + 1, true
  end
end

-- Removes the rest of a delivery that could not be queued: it would never be attempted, nor made again. Returns whether
-- there was one.
local function undo(E, each)
  local id = E .. '-' .. each.event
  if redis.pcall('HGET', of('delivery', id), 'v') ~= each.event then return false end
  redis.pcall('LREM', lane_key(E, each.cvm), -1, id)
  for _, list in ipairs({'pending', 'skipped'}) do redis.pcall('ZREM', of(list, E), id) end
  call('DEL', of('delivery', id))
  return true
end

-- For what is there in part, and where keys are damaged.
local function queue_one_by_one(E, statuses)
  for _, each in ipairs(wanted[E]) do
    for _, status in ipairs(statuses) do
      -- A delivery that its lane cannot take is listed as skipped, so that it can be recovered.
      if guarded(E, each.cvm, deliver, E, each.cvm, each.event, status) then break end
      if undo(E, each) then release(each.event) end
    end
  end
end

local function queue(E, is_new)
  local statuses = {disabled(E) and 'skipped' or 'pending', 'skipped'}
  if is_new then
    if pcall(queue_all, E, statuses[1]) then return end
    for _, each in ipairs(wanted[E]) do
      undo(E, each)
      release(each.event)
    end
  end
  queue_one_by_one(E, statuses)
end

-- While too many deliveries wait, skips the oldest that is not being attempted just now. Returns how many it skipped.
local function overflow(E)
  local count = 0
  while call('ZCARD', of('pending', E)) > L.pending do
    local victim
    for _, id in ipairs(call('ZRANGE', of('pending', E), 0, L.concurrency)) do
      local lane = call('HGET', of('delivery', id), 'c')
      if not lane then
        -- Its hash was removed by something other than the bridge; claims drop its id from the lane.
        forget(E, 'pending', {id})
        victim = false
        break
      end
      local head = redis.pcall('LINDEX', lane_key(E, lane), 0) == id
      if not head or not call('ZSCORE', of('busy', E), lane) then
        victim = id
        take_out(E, lane, id, head)
        break
      end
    end
    if victim == nil then return count end
    if victim then
      list_as(E, victim, 'skipped')
      count = count + 1
    end
  end
  return count
end

local i, events, keys = 8, {}, {}
while ARGV[i] do
  local event, cvm, wanting = ARGV[i], ARGV[i + 3], tonumber(ARGV[i + 5])
  if wanting > 0 then
    call('HSET', of('event', event), 'ran', ARGV[i + 1], 'json', ARGV[i + 2], 'seq', ARGV[i + 4])
    events[#events + 1] = {event, wanting}
  end
  for n = i + 6, i + 5 + wanting do
    local E = ARGV[n]
    if not wanted[E] then names[#names + 1], wanted[E] = E, {} end
    table.insert(wanted[E], {event = event, cvm = cvm, stamp = next_stamp()})
    keys[#keys + 1] = of('delivery', E .. '-' .. event)
  end
  i = i + 6 + wanting
end
if names[1] then
  read_disabled(names)
  local is_new = call('EXISTS', unpack(keys)) == 0
  for _, each in ipairs(is_new and events or {}) do
    -- Before the deliveries: a step that ends in its middle keeps an event for too long, and not too shortly.
    local refs = redis.pcall('HINCRBY', of('event', each[1]), 'refs', each[2])
    if type(refs) == 'table' then call('HSET', of('event', each[1]), 'refs', each[2]) end
  end
  for _, E in ipairs(names) do queue(E, is_new) end
  for _, each in ipairs(is_new and {} or events) do
    if tonumber(call('HGET', of('event', each[1]), 'refs') or '0') == 0 then call('DEL', of('event', each[1])) end
  end
end
-- An endpoint that nothing holds back has a lane that can be claimed now.
local changed, at_once, none = {}, {}, {}
if next(due_anew) then none = {busy = not is_any('busy', names), health = not is_any('health', names)} end
local function lanes_lent(E) return none.busy and 0 or redis.pcall('ZCARD', of('busy', E)) end
for _, E in ipairs(names) do
  local _, over = guarded(E, '', overflow, E)
  beyond = beyond + (over or 0)
  local lent = due_anew[E] and none.health and lanes_lent(E)
  if over ~= 0 or due_anew[E] and type(lent) ~= 'number' then
    changed[#changed + 1] = E
  elseif lent and lent < L.concurrency then
    at_once[#at_once + 1], at_once[#at_once + 2] = whole(now), E
  end
end
rescore_all(changed)
if at_once[1] then call('ZADD', P .. ':due', 'LT', unpack(at_once)) end
release_events()
keep_seen(checkpoint[5])
-- Last: a script that fails in the middle runs again from here and finds the deliveries that it had queued.
call('HSET', P, 'position', ARGV[6], 'partial', ARGV[7], 'stamp', whole(stamp))
return {1, queued, skipped, beyond, broken}
