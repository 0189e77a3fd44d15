-- Repair what no other step would find; behind `delivered_marks.lua` and `notice_rules.lua`. ARGV: limits, endpoint ids.
-- Tells of endpoints that have failed for long.
-- Puts every endpoint where claims find it, puts lanes that are in neither set into the due one, and deletes old
-- history, and what is beyond its bound. Times so far ahead that the bridge did not write them become now. If the
-- server's clock stepped back (or its successor's is behind), moves all times back with it, or lanes would wait for the
-- old time.
-- Returns {pending, repaired lanes, open breakers of enabled endpoints, age in ms of the delivery that waits longest,
-- enabled endpoints whose attempts all fail while deliveries wait}. Damaged keys are reported by the steps that use them.
local LANES, MOMENTS = {'due', 'busy'}, {'probe_at', 'not_before'}
local pending, repaired, open, oldest, failing = 0, 0, 0, 0, 0

-- Times that the version before kept in the endpoint's health.
local function move_times(E)
  for what, field in pairs({success = 'success_at', failure = 'failure_at', swept = 'swept_at'}) do
    local at = count(call('HGET', of('health', E), field))
    if at and at > (count(call('HGET', P .. ':last', what .. ' ' .. E)) or 0) then
      call('HSET', P .. ':last', what .. ' ' .. E, whole(at))
    end
    call('HDEL', of('health', E), field)
  end
end

local function move_back(E)
  local back = (count(call('HGET', P .. ':last', 'swept ' .. E)) or 0) - now
  note_last('swept', E)
  if back <= 0 then return end
  for _, kind in ipairs(LANES) do
    local lanes = call('ZRANGE', of(kind, E), 0, -1, 'WITHSCORES')
    for i = 1, #lanes, 2 do
      if tonumber(lanes[i + 1]) > now then call('ZADD', of(kind, E), whole(tonumber(lanes[i + 1]) - back), lanes[i]) end
    end
  end
  for _, field in ipairs(MOMENTS) do
    if call('HEXISTS', of('health', E), field) == 1 then call('HINCRBY', of('health', E), field, whole(-back)) end
  end
end

local FAR = 4e10  -- more than a year

local function bring_near(E)
  for _, kind in ipairs(LANES) do
    for _, lane in ipairs(call('ZRANGEBYSCORE', of(kind, E), whole(now + FAR), '+inf', 'LIMIT', 0, 100)) do
      call('ZADD', of(kind, E), whole(now), lane)
    end
  end
  for _, field in ipairs(MOMENTS) do
    local at = tonumber(call('HGET', of('health', E), field) or '0')
    if not (at and at < now + FAR) then call('HSET', of('health', E), field, whole(now)) end
  end
  local not_before = tonumber(call('HGET', of('health', E), 'not_before'))
  if not_before and not_before <= now then call('HDEL', of('health', E), 'not_before') end
end

local function measure(E)
  pending = pending + call('ZCARD', of('pending', E))
  local first = call('ZRANGE', of('pending', E), 0, 0)[1]
  local at = first and count(call('HGET', of('delivery', first), 'at'))
  if at then oldest = math.max(oldest, now - at) end
  if disabled(E) then return end
  if call('HEXISTS', of('health', E), 'open') == 1 then open = open + 1 end
  if first and call('HEXISTS', of('health', E), 'failing_since') == 1 then failing = failing + 1 end
end

local function sweep(E)
  measure(E)
  move_times(E)
  move_back(E)
  bring_near(E)
  for _, id in ipairs(call('ZRANGE', of('pending', E), 0, 99)) do
    local lane = call('HGET', of('delivery', id), 'c')
    if lane and not call('ZSCORE', of('due', E), lane) and not call('ZSCORE', of('busy', E), lane) then
      call('ZADD', of('due', E), whole(now), lane)
      repaired = repaired + 1
    end
  end
  for _, status in ipairs({'delivered', 'given_up', 'skipped'}) do
    local old = {}
    for n, id in ipairs(call('ZRANGE', of(status, E), 0, 49)) do
      local finished = tonumber(call('HGET', of('delivery', id), 'fin') or '0')
      if finished > now - L.keep_ms then break end
      old[n] = id
    end
    forget(E, status, old)
  end
  trim(E)
  drop_old_marks(E)
  tell_failing(E)
  rescore(E)
end

for i = 2, #ARGV do
  if call('HEXISTS', P .. ':endpoints', ARGV[i]) == 1 then guarded(ARGV[i], '', sweep, ARGV[i]) end
end
release_events()
keep_last()
return {pending, repaired, open, oldest, failing}
