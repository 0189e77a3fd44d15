-- What the health of an endpoint has to tell others; behind `lane_rules.lua`. KEYS[4]: notices.
-- The log has one writer: a notice waits in Redis until the leader makes an event of it. It is left in the same step as
-- what it tells, so it is told once, whatever becomes of a dispatcher.
--   P:health:E hash also has: about (JSON: what notices show of the endpoint), told (1: that it fails), owed (ms: it
--     failed or was disabled since then, and that it recovered is to be told), given_up (deliveries that no notice has
--     counted), given_up_at (ms: when one told that a delivery was given up)

-- Whether it is left. While too many wait it is not: what can be told later is then told later.
local function leave(kind, E, since, ...)
  local length = redis.pcall('XLEN', KEYS[4])
  if type(length) ~= 'number' or length >= L.notices then return false end
  local known = call('HMGET', of('health', E), 'about', 'given_up')
  local left = redis.pcall('XADD', KEYS[4], '*', 'type', kind, 'endpoint', E, 'about', known[1] or '',
    'since', since or '', 'pending', whole(call('ZCARD', of('pending', E))), 'given_up', known[2] or '0', ...)
  if type(left) ~= 'string' then return false end
  call('HDEL', of('health', E), 'given_up')
  return true
end

local function failing_since(E) return call('HGET', of('health', E), 'failing_since') end

-- An endpoint for which nothing waits is not missed. What is of no use any more is forgotten: most have no such key.
local function tell_failing(E)
  local known = call('HMGET', of('health', E), 'failing_since', 'failing_until', 'told', 'given_up_at')
  if known[4] and now - (count(known[4]) or 0) >= L.given_up_ms then call('HDEL', of('health', E), 'given_up_at') end
  local since, until_ms = count(known[1]), count(known[2])
  if known[3] or not since or now - since < L.failing_ms or not until_ms or until_ms < now then return end
  if disabled(E) or call('ZCARD', of('pending', E)) == 0 then return end
  if leave('endpoint.failing', E, known[1]) then
    call('HSET', of('health', E), 'told', 1)
    call('HSETNX', of('health', E), 'owed', known[1])
  end
end

local function tell_disabled(E, reason)
  local since = failing_since(E)
  call('HSETNX', of('health', E), 'owed', since or whole(now))
  if not leave('endpoint.disabled', E, since, 'reason', reason) then redis.pcall('HINCRBY', P, 'untold', 1) end
end

-- Disables it; that is told unless it was disabled before.
local function shut(E, reason)
  local was = disabled(E)
  disable(E, reason)
  if not was then guarded(E, '', tell_disabled, E, reason) end
end

-- Whether nothing is owed any more. An attempt of before may end well after the endpoint was disabled.
local function tell_recovered(E, owed)
  return not owed or (not disabled(E) and leave('endpoint.recovered', E, owed))
end

-- One an hour; the next notice has the number of those between.
local function tell_given_up(E, detail)
  local known = call('HMGET', of('health', E), 'given_up', 'given_up_at')
  call('HSET', of('health', E), 'given_up', whole((count(known[1]) or 0) + 1))
  local last = count(known[2]) or 0
  if last <= now and now - last < L.given_up_ms then return end
  if leave('delivery.given_up', E, failing_since(E) or whole(now), 'detail', detail) then
    call('HSET', of('health', E), 'given_up_at', whole(now))
  end
end
