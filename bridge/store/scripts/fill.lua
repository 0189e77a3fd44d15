-- Queue events for endpoints and move the position, if it is the one that the caller read from.
-- KEYS: webhooks, the log's meta. ARGV: limits, log id, position, partial, revision, new position, new partial;
--   then per event: id, ran (1/0), JSON, cvm id, number of endpoints, their ids.
-- `partial`: the endpoint up to which (by name) the event behind the position has been queued already.
-- Returns {1, queued, skipped for disabled endpoints, skipped beyond the most that may wait, broken}, or {0}.
local checkpoint = call('HMGET', P, 'birth', 'position', 'partial', 'revision', 'seen')
if call('HGET', KEYS[2], 'birth') ~= ARGV[2] or checkpoint[1] ~= ARGV[2] or checkpoint[2] ~= ARGV[3]
  or (checkpoint[3] or '') ~= ARGV[4] or (checkpoint[4] or '0') ~= ARGV[5] then return {0} end
local queued, skipped, beyond, touched, i = 0, 0, 0, {}, 8

local function deliver(E, cvm, event, status)
  local id = make(E, cvm, event, status)
  if id and status == 'skipped' then
    list_as(E, id, 'skipped')
    skipped = skipped + 1
  elseif id then
    enqueue(E, cvm, id)
    touched[E] = true
    queued = queued + 1
  end
end

-- Removes the rest of a delivery that could not be queued: it would never be attempted, nor made again.
local function undo(E, cvm, event)
  local id = E .. '-' .. event
  if redis.pcall('HGET', of('delivery', id), 'v') ~= event then return end
  redis.pcall('LREM', lane_key(E, cvm), -1, id)
  for _, list in ipairs({'pending', 'skipped'}) do redis.pcall('ZREM', of(list, E), id) end
  call('DEL', of('delivery', id))
  redis.pcall('HINCRBY', of('event', event), 'refs', -1)
end

local function share(event, cvm, first, last)
  for n = first, last do
    local E = ARGV[n]
    for _, status in ipairs({disabled(E) and 'skipped' or 'pending', 'skipped'}) do
      -- A delivery that its lane cannot take is listed as skipped, so that it can be recovered.
      if guarded(E, cvm, deliver, E, cvm, event, status) then break end
      undo(E, cvm, event)
    end
  end
end

while ARGV[i] do
  local event, cvm, count = ARGV[i], ARGV[i + 3], tonumber(ARGV[i + 4])
  if count > 0 then
    call('HSET', of('event', event), 'ran', ARGV[i + 1], 'json', ARGV[i + 2])
    share(event, cvm, i + 5, i + 4 + count)
    if tonumber(call('HGET', of('event', event), 'refs') or '0') == 0 then call('DEL', of('event', event)) end
  end
  i = i + 5 + count
end
for E in pairs(touched) do
  apart(E, function()
    beyond = beyond + overflow(E)
    rescore(E)
  end)
end
release_events()
keep_stamp()
keep_seen(checkpoint[5])
-- Last: a script that fails in the middle runs again from here and finds the deliveries that it had queued.
call('HSET', P, 'position', ARGV[6], 'partial', ARGV[7])
return {1, queued, skipped, beyond, broken}
