-- Record the results of attempts; behind `delivered_marks.lua`. KEYS: webhooks, the log's meta. ARGV: limits, then per
--   attempt: endpoint, lane, token, delivery, verdict (delivered, failed, given_up, gone, postponed; withheld, unreadable:
--   none was or will be made), ms to wait, ms for which the receiver asked to get nothing (0: it did not), jitter of the
--   probe's wait (0 to 1), attempt as JSON (if postponed: why), the event's sequence (0: none).
-- Returns {codes, broken}, a code per attempt: 0 the claim had ended, 1 done, 2 the breaker opened, 3 it closed,
-- 4 disabled, 5 its keys are damaged: the lane is quarantined.
local function succeeded(E, lane)
  local health = of('health', E)
  local was = call('HMGET', health, 'open', 'many', 'failing_since')
  call('HSET', health, 'success_at', whole(now))
  forget_failures(E)
  -- The waits were for an endpoint that was away; it is back, or a caller has just tested it.
  local away = was[2] and was[3] and now - tonumber(was[3]) >= L.away_ms
  if was[1] or away or lane == TEST_LANE then close_breaker(E) end
  return was[1] and 3 or 1
end

-- Failures belong together if each follows the last, planned waits aside, within half of the time after which an
-- endpoint is disabled: an endpoint without attempts in between may have been well.
local function note_failing(health, wait)
  local was, failing_until = call('HMGET', health, 'failing_since', 'failing_until'), now + wait + L.disable_after_ms / 2
  local known = tonumber(was[2] or '0')
  if not was[1] or known < now then call('HSET', health, 'failing_since', whole(now)) end
  call('HSET', health, 'failure_at', whole(now), 'failing_until', whole(math.max(known, failing_until)))
end

-- Holds for all lanes, whatever the breaker does. A shorter time does not end a longer one.
local function hold(E, ms)
  if ms <= 0 then return end
  local known = tonumber(call('HGET', of('health', E), 'not_before') or '0')
  call('HSET', of('health', E), 'not_before', whole(math.max(known, now + ms)))
end

local function failed(E, lane, wait, jitter)
  local health = of('health', E)
  call('HDEL', health, 'postponed', 'postponed_since')
  local fails = call('HINCRBY', health, 'fails', 1)
  note_failing(health, wait)
  if call('HSETNX', health, 'lane', lane) == 0 and call('HGET', health, 'lane') ~= lane then
    call('HSET', health, 'many', 1)
  end
  local known = call('HMGET', health, 'open', 'many', 'failing_since')
  if now - tonumber(known[3]) >= L.disable_after_ms and not disabled(E) then
    disable(E, string.format('every attempt failed for %g days', L.disable_after_ms / 86400000))
    return 4
  end
  if not known[1] and (fails < L.failures or not known[2]) then return 1 end
  local pause = math.min(L.probe_first_ms * 2 ^ math.max(math.min(fails - L.failures, 20), 0), L.probe_most_ms)
  call('HSET', health, 'open', 1, 'probe_at', whole(now + pause * (0.5 + jitter / 2)))
  return known[1] and 1 or 2
end

local function pop(E, lane, id, status)
  call('LPOP', lane_key(E, lane))
  list_as(E, id, status)
  if call('EXISTS', lane_key(E, lane)) == 1 then call('ZADD', of('due', E), whole(now), lane) end
end

-- The dispatcher could not make the attempt: the receiver has no part in it, so nothing counts. Its owner sees why.
local function postpone(E, lane, wait, why)
  call('ZADD', of('due', E), whole(now + wait), lane)
  local health = of('health', E)
  call('HSET', health, 'postponed', why)
  call('HSETNX', health, 'postponed_since', whole(now))
  if call('HEXISTS', health, 'open') == 1 then call('HSET', health, 'probe_at', whole(now + wait)) end
  return 1
end

-- Only the last two attempts keep what the receiver answered: twenty such answers would mostly be the same.
local function add_attempt(id, attempt)
  local attempts = of('attempts', id)
  local count = call('RPUSH', attempts, attempt)
  if count > L.attempts then call('LPOP', attempts) end
  if count < 3 then return end
  local fine, old = pcall(cjson.decode, call('LINDEX', attempts, -3) or '')
  if fine and type(old) == 'table' and old[5] ~= '' then
    old[5] = ''
    call('LSET', attempts, -3, cjson.encode(old))
  end
end

local function settle(i)
  local E, lane, id, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
  if call('HGET', of('claims', E), lane) ~= ARGV[i + 2] or call('LINDEX', lane_key(E, lane), 0) ~= id then return 0 end
  give_back(E, lane)
  if verdict == 'postponed' then return postpone(E, lane, tonumber(ARGV[i + 5]), ARGV[i + 8]) end
  if verdict == 'withheld' or verdict == 'unreadable' then
    pop(E, lane, id, 'skipped')
    return 1
  end
  add_attempt(id, ARGV[i + 8])
  if verdict == 'delivered' then
    pop(E, lane, id, 'delivered')
    mark_delivered(E, string.sub(id, #E + 2), tonumber(ARGV[i + 9]))
    return succeeded(E, lane)
  end
  if verdict == 'given_up' or lane == TEST_LANE then  -- a test is one attempt, whatever it came to
    pop(E, lane, id, 'given_up')
  else
    call('HINCRBY', of('delivery', id), 'k', 1)
    call('ZADD', of('due', E), whole(now + tonumber(ARGV[i + 5])), lane)
  end
  hold(E, tonumber(ARGV[i + 6]))
  local code = failed(E, lane, tonumber(ARGV[i + 5]), tonumber(ARGV[i + 7]))
  if verdict == 'gone' and not disabled(E) then
    disable(E, 'the receiver answered 410 Gone')
    return 4
  end
  return code
end

local codes, touched = {}, {}
write_although_full()
for i = 2, #ARGV, 10 do
  local E, lane = ARGV[i], ARGV[i + 1]
  local fine, code = guarded(E, lane, settle, i)
  if not fine then
    code = 5
    guarded(E, '', quarantine, E, lane)
  end
  codes[#codes + 1] = code
  if code > 0 then touched[E] = true end
end
for E in pairs(touched) do apart(E, rescore) end
keep_stamp()
return {codes, broken}
