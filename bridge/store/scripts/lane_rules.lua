-- What all scripts of the lanes share; it is put in front of each, behind `prelude.lua`.
-- KEYS: the webhooks hash (every other name about webhooks begins with it, so all are of one hash slot), the log's
--   meta, the log, notices.
-- ARGV[1]: the limits as JSON.
--
--   P hash                 position, partial, birth (the checkpoint and its log id), stamp, revision,
--                          floor (the low-water mark of P:changed), seen (ms, when a dispatcher last worked),
--                          untold (notices that did not fit)
--   P:changed zset         endpoint -> revision of its last change, complete above the low-water mark
--   P:endpoints hash       endpoint -> JSON             P:ids zset        endpoint ids, by name
--   P:keys hash            key id -> check value of a key that has sealed
--   P:disabled hash        endpoint -> reason           P:health:E hash   failures, breaker, times,
--                                                             not_before (`Retry-After`, for all lanes), own limits
--   P:last hash            "success E", "failure E", "swept E" -> ms; as fields of P:health:E before: then a key of
--                          its own means that something is the matter with the endpoint, or that it has limits
--   P:due zset             endpoint -> when one of its lanes can be claimed next
--   P:due:E zset           lane -> when it may be attempted
--   P:busy:E zset          claimed lane -> when its lease ends          P:claims:E hash  lane -> token
--   P:lane:E:cvm list      delivery ids, the head is the one to attempt
--   P:delivery:id hash     e(ndpoint) c(vm) v(event) s(tatus) k (failures) at, fin (ms), r (1: a caller had what was
--                          delivered sent again), a (the first attempt, where it is the only one and succeeded)
--   P:sent:E hash          marks of what was delivered, see delivered_marks.lua
--   P:attempts:id list     JSON, the last ones          P:event:v hash    json, ran, refs, seq(uence)
--   P:pending:E, delivered:E, given_up:E, skipped:E zsets   delivery id -> stamp (microseconds, unique, growing)
--
-- A lane with deliveries is in exactly one of due:E and busy:E; an empty lane is in neither.
local P, L = KEYS[1], cjson.decode(ARGV[1])
local TEST_LANE = 'webhook.test'

local function of(kind, id) return P .. ':' .. kind .. ':' .. id end
local function lane_key(E, lane) return P .. ':lane:' .. E .. ':' .. lane end

-- Redis without memory refuses a script's first write unless that needs none, and lets the rest through. Behind this
-- step a lease is renewed and a result recorded also then: otherwise the same delivery would be sent again and again.
local function write_although_full() call('DEL', P .. ':none') end

-- A dispatcher is at work. Where Redis has no memory left, that is not what a step fails for.
local function keep_seen(known)
  local at = tonumber(known or '0') or 0
  if now - at >= 5000 or at > now then redis.pcall('HSET', P, 'seen', whole(now)) end
end

-- Whether the endpoint is off; each is asked for once in a script.
local off = {}
local function disabled(E)
  if off[E] == nil then off[E] = call('HEXISTS', P .. ':disabled', E) == 1 end
  return off[E]
end

-- Asks it for many at once.
local function read_disabled(names)
  local unknown = {}
  for _, E in ipairs(names) do
    if off[E] == nil then unknown[#unknown + 1] = E end
  end
  if not unknown[1] then return end
  for n, reason in ipairs(call('HMGET', P .. ':disabled', unpack(unknown))) do off[unknown[n]] = reason ~= false end
end

-- Whether any of these endpoints or deliveries has a key of this kind: one command, where mostly none has.
local function is_any(kind, names)
  local keys = {}
  for n, name in ipairs(names) do keys[n] = of(kind, name) end
  return keys[1] and call('EXISTS', unpack(keys)) > 0
end

-- When something last happened to an endpoint; `keep_last` writes it for all endpoints of a script at once.
local last = {}
local function note_last(what, E) last[#last + 1], last[#last + 2] = what .. ' ' .. E, whole(now) end
local function keep_last()
  if last[1] then call('HSET', P .. ':last', unpack(last)) end
end

-- A whole number as the bridge writes it, small enough that Lua's numbers hold its successors; nil for anything else.
local function count(text)
  local number = tonumber(string.match(text or '', '^%d+$') and text)
  return number and number < 2 ^ 52 and number or nil
end

local stamp
local function next_stamp()
  stamp = math.max((stamp or count(call('HGET', P, 'stamp')) or 0) + 1, micros)
  return whole(stamp)
end
local function keep_stamp() if stamp then call('HSET', P, 'stamp', whole(stamp)) end end

-- An endpoint's own limits: how many of its lanes may be lent at once, from when on (ms), how many claims at a time then,
-- and its rate (nil: any). Quick receivers get theirs fifty times a second. A moment that this rate cannot have led to
-- does not count: the clock stepped back, or the rate was another one.
local function own_limits(lanes, rate, paced)
  local most = math.min(L.concurrency, tonumber(lanes or '') or L.concurrency)
  rate = tonumber(rate or '')
  if not rate then return most, 0, most end
  local at_once, from = math.max(1, math.floor(rate / 50)), tonumber(paced or '') or 0
  if from > now + math.ceil(at_once * 1000 / rate) then from = 0 end
  return most, from, at_once, rate
end

-- '' for no limit. After the endpoint's own writes: damaged keys are reported by the steps that use them.
local function set_own_limits(E, lanes, rate)
  for field, value in pairs({lanes = lanes, rate = rate}) do
    if value == '' then redis.pcall('HDEL', of('health', E), field) else redis.pcall('HSET', of('health', E), field, value) end
  end
end

-- What holds back all lanes of an endpoint of which `lent` are lent: how many more may be (`room`; behind an open
-- breaker the probe alone), from when on (`from`, `probe_at`, ms), until when a requested test alone (`not_before`), how
-- many at a time, and the rate. `none`: kinds of keys that the endpoint is known not to have.
local function gate(E, lent, none)
  local health = none.health and {}
    or call('HMGET', of('health', E), 'open', 'probe_at', 'not_before', 'lanes', 'rate', 'paced')
  local most, from, at_once, rate = own_limits(health[4], health[5], health[6])
  return {room = (health[1] and 1 or most) - lent, open = health[1], probe_at = tonumber(health[2] or '0'),
    not_before = tonumber(health[3] or '0'), from = from, at_once = at_once, rate = rate}
end

-- The first moment (ms) at which one of the endpoint's lanes can be claimed; nil: none. `first_lease`: when the first of
-- the leases ends; `first_due`: when the first of the other lanes is due; `held`: its gate.
local function earliest(E, first_lease, first_due, held)
  if not first_due or held.room <= 0 then return first_lease end
  local first, not_before = first_due, held.not_before
  if held.open then first = math.max(first, held.probe_at) end
  if first < not_before and not_before > now then
    -- Only a test that a caller requested is sent earlier.
    first = math.min(not_before, tonumber(call('ZSCORE', of('due', E), TEST_LANE) or not_before))
  end
  first = math.max(first, held.from)
  if first == 0 then first = now end
  return math.min(first, first_lease or first)
end

-- The same, read anew.
local function first_moment(E, none)
  if disabled(E) then return nil end
  local busy = none.busy and {} or call('ZRANGE', of('busy', E), 0, -1, 'WITHSCORES')
  local due = none.due and {} or call('ZRANGE', of('due', E), 0, 0, 'WITHSCORES')
  return earliest(E, tonumber(busy[2]), tonumber(due[2]), due[2] and gate(E, #busy / 2, none))
end

-- Puts the endpoint where claims find it.
local function rescore(E)
  local at = first_moment(E, {})
  if at then call('ZADD', P .. ':due', whole(at), E) else call('ZREM', P .. ':due', E) end
end

-- Runs a step of one lane, or of one endpoint if `lane` is ''. Damaged keys (another type, text instead of numbers) end
-- this step alone, and the other lanes go on. Errors of Redis itself (no memory, read-only) come at a script's first
-- write and end the script. Returns whether the step was done, and its answer.
local FOREIGN = {'WRONGTYPE', 'not an integer', 'not a valid float', 'overflow', 'must be strings', 'attempt to',
  'bad argument'}
local SHARED = {[''] = 'hash', [':endpoints'] = 'hash', [':disabled'] = 'hash', [':keys'] = 'hash', [':last'] = 'hash',
  [':ids'] = 'zset', [':changed'] = 'zset', [':due'] = 'zset'}
local broken, reported = {}, {}

-- Whether a key that all endpoints share has another type than this.
local function is_odd(suffix)
  local kind = call('TYPE', P .. suffix).ok
  return kind ~= 'none' and kind ~= SHARED[suffix]
end

local function guarded(E, lane, step, ...)
  local fine, answer = pcall(step, ...)
  if fine then return true, answer end
  local text, foreign = type(answer) == 'table' and answer.err or tostring(answer), false
  for _, sign in ipairs(FOREIGN) do foreign = foreign or string.find(text, sign, 1, true) end
  -- Damage that all endpoints share is nobody's own: the script ends, and runs again once it is mended.
  for suffix in pairs(SHARED) do foreign = foreign and not is_odd(suffix) end
  if not foreign then error(answer, 0) end
  local key, n = E .. ' ' .. lane, #broken
  if not reported[key] then broken[n + 1], broken[n + 2], broken[n + 3] = E, lane, text end
  reported[key] = true
  return false
end

-- Nobody has the lane any more.
local function give_back(E, lane)
  call('ZREM', of('busy', E), lane)
  call('HDEL', of('claims', E), lane)
end

-- Takes a delivery that nobody is attempting out of its lane; behind the lane's head, the next one is due.
local function take_out(E, lane, id, was_head)
  redis.pcall('LREM', lane_key(E, lane), 1, id)
  if call('EXISTS', lane_key(E, lane)) == 0 then
    call('ZREM', of('due', E), lane)
  elseif was_head then
    call('ZADD', of('due', E), whole(now), lane)
  end
end

local function quarantine(E, lane)
  redis.pcall('HDEL', of('claims', E), lane)
  call('ZREM', of('busy', E), lane)
  call('ZADD', of('due', E), whole(now + L.quarantine_ms), lane)
end

-- Runs a step of one endpoint; quarantines the endpoint if its keys are damaged.
local function apart(E, step)
  if not guarded(E, '', step, E) then call('ZADD', P .. ':due', whole(now + L.quarantine_ms), E) end
end

-- Puts endpoints where claims find them: `moments` are theirs, false for never.
local function place(moments)
  local at_work, at_rest = {}, {}
  for E, at in pairs(moments) do
    if at then
      at_work[#at_work + 1], at_work[#at_work + 2] = whole(at), E
    else
      at_rest[#at_rest + 1] = E
    end
  end
  if at_work[1] then call('ZADD', P .. ':due', unpack(at_work)) end
  if at_rest[1] then call('ZREM', P .. ':due', unpack(at_rest)) end
end

-- A step of one endpoint that returns when it can be claimed next; one whose keys are damaged is quarantined.
local function next_moment(E, step, ...)
  local fine, at = guarded(E, '', step, E, ...)
  if not fine then return now + L.quarantine_ms end
  return at or false
end

-- As `rescore` does one.
local function rescore_all(names)
  if not names[1] then return end
  read_disabled(names)
  local none, moments = {due = not is_any('due', names), busy = not is_any('busy', names)}, {}
  none.health = not none.due and not is_any('health', names)
  for _, E in ipairs(names) do moments[E] = next_moment(E, first_moment, none) end
  place(moments)
end

-- Events that deliveries need no more, and of how many: `release_events` writes it for all deliveries of a script at
-- once, because endpoints that want the same events forget them at the same time.
local released = {}
local function release(event) released[event] = (released[event] or 0) + 1 end

local function release_events()
  local gone = {}
  for event, times in pairs(released) do
    local left = redis.pcall('HINCRBY', of('event', event), 'refs', -times)
    if type(left) == 'table' or left <= 0 then gone[#gone + 1] = of('event', event) end
  end
  -- In parts: Lua's stack holds some thousands.
  for n = 1, #gone, 1000 do call('DEL', unpack(gone, n, math.min(n + 999, #gone))) end
end

-- Set by `delivered_marks.lua`: marks that these events were delivered. Every script that forgets such has it.
local mark_delivered

-- Forgets deliveries that a list has. Needs `release_events`.
local function forget(E, list, ids)
  local deliveries, keys = {}, {}
  for n, id in ipairs(ids) do
    deliveries[n], keys[2 * n - 1], keys[2 * n] = of('delivery', id), of('delivery', id), of('attempts', id)
  end
  if not ids[1] then return end
  call('ZREM', of(list, E), unpack(ids))
  local all = call('EXISTS', unpack(deliveries)) == #ids
  local events = {}
  for n, id in ipairs(ids) do
    -- What something other than the bridge removed or listed needs no event.
    local own = string.sub(id, 1, #E + 1) == E .. '-' and (all or call('EXISTS', deliveries[n]) == 1)
    if own then events[#events + 1] = string.sub(id, #E + 2) end
  end
  if list == 'delivered' then mark_delivered(E, events) end
  for _, event in ipairs(events) do release(event) end
  call('DEL', unpack(keys))
end

local function older_lost(E)
  local given_up = call('ZRANGE', of('given_up', E), 0, 0, 'WITHSCORES')
  local skipped = call('ZRANGE', of('skipped', E), 0, 0, 'WITHSCORES')
  if not skipped[1] or (given_up[1] and tonumber(given_up[2]) < tonumber(skipped[2])) then
    return 'given_up', given_up
  end
  return 'skipped', skipped
end

-- Bounds the history: given-up and skipped deliveries may still be wanted, so delivered ones go first. One script
-- forgets so many, some milliseconds; the next ones go on.
local forgettable = 2000
local function trim(E)
  local lost = call('ZCARD', of('given_up', E)) + call('ZCARD', of('skipped', E))
  while lost > L.lost do
    local list, oldest = older_lost(E)
    forget(E, list, {oldest[1]})
    lost = lost - 1
  end
  local over = math.min(call('ZCARD', of('delivered', E)) + lost - L.finished, 200, forgettable)
  if over > 0 then forget(E, 'delivered', call('ZRANGE', of('delivered', E), 0, over - 1)) end
  forgettable = forgettable - math.max(over, 0)
end

local function list_as(E, id, status)
  local known = call('ZSCORE', of('pending', E), id)
  call('ZREM', of('pending', E), id)
  call('ZADD', of(status, E), known or next_stamp(), id)
  call('HSET', of('delivery', id), 's', status, 'fin', whole(now))
  trim(E)
end

-- Makes a delivery. Returns false if it exists: no event is queued twice for an endpoint.
local function make(E, cvm, event, status)
  local id = E .. '-' .. event
  if call('HSETNX', of('delivery', id), 'e', E) == 0 then return false end
  call('HSET', of('delivery', id), 'c', cvm, 'v', event, 's', status, 'k', 0, 'at', whole(now))
  call('HINCRBY', of('event', event), 'refs', 1)
  return id
end

local function enqueue(E, lane, id)
  call('ZADD', of('pending', E), next_stamp(), id)
  if call('RPUSH', lane_key(E, lane), id) == 1 then call('ZADD', of('due', E), whole(now), lane) end
end

-- Begins the revisions anew: every dispatcher reads all endpoints.
local function renumber()
  call('DEL', P .. ':changed')
  call('HSET', P, 'revision', whole(micros), 'floor', whole(micros))
  return whole(micros)
end

-- '0' where there is none, as before the first endpoint.
local function readable_revision(text)
  if not text or count(text) and whole(count(text)) == text then return text or '0' end
  return renumber()
end
local function current_revision() return readable_revision(call('HGET', P, 'revision')) end

-- Gives every change of an endpoint a revision of its own, which no earlier Redis server used either.
local function touch(E)
  local known = count(call('HGET', P, 'revision')) or 0
  local revision = whole(math.max(known + 1, micros))
  -- Where the present revision is not there, earlier changes are not there either.
  local newest = call('ZREVRANGE', P .. ':changed', 0, 0, 'WITHSCORES')[2] or call('HGET', P, 'floor')
  if known == 0 or tonumber(newest) ~= known then
    call('DEL', P .. ':changed')
    call('HSET', P, 'floor', revision)
  end
  call('HSET', P, 'revision', revision)
  call('ZADD', P .. ':changed', revision, E)
  if call('HLEN', P .. ':endpoints') == 0 then
    call('DEL', P .. ':changed')
    call('HSET', P, 'floor', revision)
  elseif call('ZCARD', P .. ':changed') > L.changes then
    call('HSET', P, 'floor', call('ZPOPMIN', P .. ':changed')[2])
  end
end

-- Makes the names agree with the registrations. What is only a name remains: it is listed, and can be removed. Returns
-- how many registrations were removed because they had no name that the bridge gives.
local function restore_ids()
  local function is_name(E) return #E <= 64 and string.match(E, '^[%w_-]+$') end
  local removed = 0
  for _, E in ipairs(call('ZRANGE', P .. ':ids', 0, -1)) do
    if is_name(E) then call('ZADD', P .. ':ids', 0, E) else call('ZREM', P .. ':ids', E) end
  end
  for _, E in ipairs(call('HKEYS', P .. ':endpoints')) do
    if is_name(E) then
      call('ZADD', P .. ':ids', 0, E)
    else
      removed = removed + call('HDEL', P .. ':endpoints', E)
    end
  end
  return removed
end

local function disable(E, reason)
  call('HSET', P .. ':disabled', E, reason)
  off[E] = true
  touch(E)
  call('ZREM', P .. ':due', E)
end

-- As if it had never failed.
local FAILURES = {'fails', 'lane', 'many', 'failing_since', 'failing_until', 'postponed', 'postponed_since', 'told'}
local function forget_failures(E) call('HDEL', of('health', E), unpack(FAILURES)) end

local function close_breaker(E)
  call('HDEL', of('health', E), 'open', 'probe_at')
  -- All lanes are due, because the endpoint is back. One command, however many lanes there are.
  call('ZUNIONSTORE', of('due', E), 1, of('due', E), 'WEIGHTS', 0)
end
