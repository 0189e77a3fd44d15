-- Record the results of attempts; behind `delivered_marks.lua` and `notice_rules.lua`. ARGV: limits, then per
--   attempt: endpoint, lane, token, delivery, verdict (delivered, failed, given_up, gone, postponed; withheld, unreadable:
--   none was or will be made), ms to wait, ms for which the receiver asked to get nothing (0: it did not), jitter of the
--   probe's wait (0 to 1), attempt as JSON (if postponed: why), what notices show of the endpoint (JSON, '' after a
--   success), what a notice that it was given up tells (JSON, '': none).
-- Returns {codes, broken}, a code per attempt: 0 the claim had ended, 1 done, 2 the breaker opened, 3 it closed,
-- 4 disabled, 5 its keys are damaged: the lane is quarantined.
-- A long history is bounded in one script of sixteen, by many at a time; more often where a script has many results, or
-- some 500 would be forgotten at once.
local every = math.min(math.floor(L.finished / 64) + 1, math.ceil(500 / #ARGV * 11))
local is_trimming = micros % every == 0
local codes = {}  -- by the index of the result in ARGV
local none  -- kinds of keys that no endpoint, or none of what was delivered, had when the script began

local function succeeded(E, is_test)
  note_last('success', E)
  if none.health and not is_test then return 1 end
  local was, is_noted = call('HMGET', of('health', E), 'open', 'owed', unpack(FAILURES)), false
  for n = 2, 2 + #FAILURES do is_noted = is_noted or was[n] end
  if is_noted then
    local is_even = tell_recovered(E, was[2])
    forget_failures(E)
    if is_even then call('HDEL', of('health', E), 'about', 'owed') end
  end
  -- The waits were for an endpoint that was away; it is back, or a caller has just tested it.
  local away = was[5] and was[6] and now - tonumber(was[6]) >= L.away_ms
  if was[1] or away or is_test then close_breaker(E) end
  return was[1] and 3 or 1
end

-- Failures belong together if each follows the last, planned waits aside, within half of the time after which an
-- endpoint is disabled: an endpoint without attempts in between may have been well.
local function note_failing(E, wait)
  local health, failing_until = of('health', E), now + wait + L.disable_after_ms / 2
  local was = call('HMGET', health, 'failing_since', 'failing_until')
  local known = tonumber(was[2] or '0')
  if not was[1] or known < now then call('HSET', health, 'failing_since', whole(now)) end
  note_last('failure', E)
  call('HSET', health, 'failing_until', whole(math.max(known, failing_until)))
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
  note_failing(E, wait)
  if call('HSETNX', health, 'lane', lane) == 0 and call('HGET', health, 'lane') ~= lane then
    call('HSET', health, 'many', 1)
  end
  local known = call('HMGET', health, 'open', 'many', 'failing_since')
  if now - tonumber(known[3]) >= L.disable_after_ms and not disabled(E) then
    shut(E, string.format('every attempt failed for %g days', L.disable_after_ms / 86400000))
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

-- A result that is not just a delivery; its lane has been given back.
local function settle(i)
  local E, lane, id, verdict = ARGV[i], ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
  if verdict == 'postponed' then return postpone(E, lane, tonumber(ARGV[i + 5]), ARGV[i + 8]) end
  if verdict == 'withheld' or verdict == 'unreadable' then
    pop(E, lane, id, 'skipped')
    return 1
  end
  add_attempt(id, ARGV[i + 8])
  if verdict == 'delivered' then
    pop(E, lane, id, 'delivered')
    return succeeded(E, true)
  end
  if verdict == 'given_up' or lane == TEST_LANE then  -- a test is one attempt, whatever it came to
    pop(E, lane, id, 'given_up')
  else
    call('HINCRBY', of('delivery', id), 'k', 1)
    call('ZADD', of('due', E), whole(now + tonumber(ARGV[i + 5])), lane)
  end
  hold(E, tonumber(ARGV[i + 6]))
  if ARGV[i + 9] ~= '' then call('HSET', of('health', E), 'about', ARGV[i + 9]) end
  if ARGV[i + 10] ~= '' then tell_given_up(E, ARGV[i + 10]) end
  local code = failed(E, lane, tonumber(ARGV[i + 5]), tonumber(ARGV[i + 7]))
  if verdict == 'gone' and not disabled(E) then
    shut(E, 'the receiver answered 410 Gone')
    return 4
  end
  return code
end

local function is_plain_delivery(i) return ARGV[i + 4] == 'delivered' and ARGV[i + 1] ~= TEST_LANE end

-- The results of one endpoint whose claims hold, given back; and which lanes have more than that delivery.
local function take_back(E, results)
  local asked, own, lanes, more = {}, {}, {}, {}
  for n, i in ipairs(results) do asked[n] = ARGV[i + 1] end
  local tokens = call('HMGET', of('claims', E), unpack(asked))
  for n, i in ipairs(results) do
    local lane = asked[n]
    codes[i] = 0
    if tokens[n] == ARGV[i + 2] and more[lane] == nil then
      local fine, ids = guarded(E, lane, call, 'LRANGE', lane_key(E, lane), 0, 1)
      if not fine then
        codes[i] = 5
        quarantine(E, lane)
      elseif ids[1] == ARGV[i + 3] then
        codes[i] = nil
        own[#own + 1], lanes[#lanes + 1], more[lane] = i, lane, ids[2] or false
      end
    end
  end
  if lanes[1] then
    call('ZREM', of('busy', E), unpack(lanes))
    call('HDEL', of('claims', E), unpack(lanes))
  end
  return own, more
end

local function fail(E, i)
  codes[i] = 5
  guarded(E, '', quarantine, E, ARGV[i + 1])
end

local function record(i)
  local id, kept = ARGV[i + 3], {}
  if none.attempts then kept = {'a', ARGV[i + 8]} else add_attempt(id, ARGV[i + 8]) end
  call('HSET', of('delivery', id), 's', 'delivered', 'fin', whole(now), unpack(kept))
end

-- Deliveries of one endpoint that succeeded: what they share is written once.
local function deliver(E, results, more)
  local ids, lanes = {}, {}
  for _, i in ipairs(results) do
    if guarded(E, ARGV[i + 1], record, i) then
      ids[#ids + 1], lanes[#lanes + 1] = ARGV[i + 3], ARGV[i + 1]
    else
      fail(E, i)
    end
  end
  if not ids[1] then return end
  local stamps, listed, due = call('ZMSCORE', of('pending', E), unpack(ids)), {}, {}
  for n, id in ipairs(ids) do listed[2 * n - 1], listed[2 * n] = stamps[n] or next_stamp(), id end
  call('ZREM', of('pending', E), unpack(ids))
  call('ZADD', of('delivered', E), unpack(listed))
  for _, lane in ipairs(lanes) do
    call('LPOP', lane_key(E, lane))
    if more[lane] then due[#due + 1], due[#due + 2] = whole(now), lane end
  end
  if due[1] then call('ZADD', of('due', E), unpack(due)) end
  if is_trimming then trim(E) end
  local code = succeeded(E, false)
  for _, i in ipairs(results) do
    if not codes[i] then codes[i], code = code, 1 end
  end
end

local function settle_all(E, results)
  local own, more = take_back(E, results)
  local delivered = {}
  for _, i in ipairs(own) do
    if is_plain_delivery(i) then delivered[#delivered + 1] = i end
  end
  if delivered[1] and not guarded(E, '', deliver, E, delivered, more) then
    for _, i in ipairs(delivered) do fail(E, i) end
  end
  for _, i in ipairs(own) do
    if not is_plain_delivery(i) then
      local fine, code = guarded(E, ARGV[i + 1], settle, i)
      if fine then codes[i] = code else fail(E, i) end
    end
  end
end

local names, results, delivered = {}, {}, {}
for i = 2, #ARGV, 11 do
  local E = ARGV[i]
  if is_plain_delivery(i) then delivered[#delivered + 1] = ARGV[i + 3] end
  if not results[E] then names[#names + 1], results[E] = E, {} end
  table.insert(results[E], i)
end
write_although_full()
none = {health = not is_any('health', names), attempts = not is_any('attempts', delivered)}
for _, E in ipairs(names) do
  if not guarded(E, '', settle_all, E, results[E]) then
    for _, i in ipairs(results[E]) do
      if codes[i] ~= 0 then fail(E, i) end
    end
  end
end
local touched, found = {}, {}
for _, E in ipairs(names) do
  local is_touched = false
  for _, i in ipairs(results[E]) do is_touched = is_touched or codes[i] > 0 end
  if is_touched then touched[#touched + 1] = E end
end
rescore_all(touched)
release_events()
keep_last()
keep_stamp()
for i = 2, #ARGV, 11 do found[#found + 1] = codes[i] end
return {found, broken}
