-- The position up to which the log was read for webhooks; behind `log_rules.lua`. ARGV: limits, 1 if a dispatcher asks.
-- Returns {log id, position, partial, revision, the log's last id, its low-water mark, trimmed (1/0), what had to be
-- mended ('' nothing)}, or {} without a log whose id can be read.
if ARGV[2] == '1' then keep_seen(call('HGET', P, 'seen')) end
local meta = call('HMGET', KEYS[2], 'birth', 'last_id', 'floor', 'trimmed')
if not string.match(meta[1] or '', '^[%w%p ]+$') then return {} end
local low_water_mark = is_id(meta[3]) and meta[3] or '0-0'
local function newest_entry() return (call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1] or {low_water_mark})[1] end
local last = is_id(meta[2]) and meta[2] or newest_entry()

-- Nothing would ever follow a position above the log's end. Strangers' entries may be above the bridge's.
local function is_position(id)
  return is_id(id) and (not is_above(id, last) or not is_above(id, newest_entry()))
end

-- A position with nothing unread below it: the entry before the newest event of which there is a delivery. That event
-- may have been queued for some endpoints only; no event is queued twice.
local function found_position()
  local newest = low_water_mark
  for _, E in ipairs(call('HKEYS', P .. ':endpoints')) do
    for _, status in ipairs({'pending', 'delivered', 'given_up', 'skipped'}) do
      local ids = redis.pcall('ZREVRANGE', of(status, E), 0, 19)
      for _, id in ipairs(ids.err and {} or ids) do
        local event = string.sub(id, #E + 2)
        if is_id(event) and is_above(event, newest) and not is_above(event, last) then newest = event end
      end
    end
  end
  local before = call('XREVRANGE', KEYS[3], '(' .. newest, '-', 'COUNT', 1)[1]
  return before and is_above(before[1], low_water_mark) and before[1] or low_water_mark
end

local known, endpoints = call('HMGET', P, 'birth', 'position', 'partial', 'revision'), call('HLEN', P .. ':endpoints')
local position, partial, mended = known[2], known[3] or '', ''
local revision = (known[4] or endpoints == 0) and readable_revision(known[4]) or renumber()
if endpoints == 0 then
  -- No endpoint waits for an event.
  position, partial = last, ''
  if not known[2] then return {meta[1], position, '', revision, last, low_water_mark, meta[4], ''} end
elseif position and known[1] ~= meta[1] then
  -- A new log is read from its beginning.
  position, partial = low_water_mark, ''
elseif not (position and is_position(position)) then
  position, partial, mended = found_position(), '', 'position'
elseif partial ~= '' and call('HEXISTS', P .. ':endpoints', partial) == 0 then
  -- Always right: no event is queued twice. Endpoints up to a name that stands for nothing would miss the event.
  partial = ''
end
if known[1] ~= meta[1] or known[2] ~= position or known[3] ~= partial then
  call('HSET', P, 'birth', meta[1], 'position', position, 'partial', partial)
end
return {meta[1], position, partial, revision, last, low_water_mark, meta[4] == '1' and '1' or '0', mended}
