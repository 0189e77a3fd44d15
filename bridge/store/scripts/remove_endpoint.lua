-- Remove an endpoint, its lanes and deliveries, whatever is in its keys. ARGV: limits, wake channel, id. Returns 1 or 0.
-- One step for at most 25 000 deliveries, 11 000 with the settings as they come: some 50 to 100 ms for these.
local E, lanes = ARGV[3], {}
if call('HDEL', P .. ':endpoints', E) + call('ZREM', P .. ':ids', E) == 0 then return 0 end
call('HDEL', P .. ':disabled', E)
call('ZREM', P .. ':due', E)

local function members(command, key)
  local found = redis.pcall(command, key, 0, -1)
  return found.err and {} or found
end

local function drop(id)
  local delivery = redis.pcall('HMGET', of('delivery', id), 'e', 'c', 'v')
  if delivery.err then delivery = {E, false, string.sub(id, #E + 2)} end
  if delivery[1] and delivery[1] ~= E then return end  -- another endpoint's: it was not listed by the bridge
  if delivery[2] then lanes[delivery[2]] = true end
  call('DEL', of('delivery', id), of('attempts', id))
  if not delivery[3] or call('EXISTS', of('event', delivery[3])) == 0 then return end
  local left = redis.pcall('HINCRBY', of('event', delivery[3]), 'refs', -1)
  if type(left) == 'table' or left <= 0 then call('DEL', of('event', delivery[3])) end
end

for _, kind in ipairs({'due', 'busy'}) do
  for _, lane in ipairs(members('ZRANGE', of(kind, E))) do lanes[lane] = true end
  call('DEL', of(kind, E))
end
for _, status in ipairs({'pending', 'delivered', 'given_up', 'skipped'}) do
  for _, id in ipairs(members('ZRANGE', of(status, E))) do drop(id) end
  call('DEL', of(status, E))
end
local names = {}
for lane in pairs(lanes) do names[#names + 1] = lane end
for _, lane in ipairs(names) do
  -- Deliveries that no list has.
  for _, id in ipairs(members('LRANGE', lane_key(E, lane))) do drop(id) end
  call('DEL', lane_key(E, lane))
end
call('DEL', of('claims', E), of('health', E), of('sent', E))
redis.pcall('HDEL', P .. ':last', 'success ' .. E, 'failure ' .. E, 'swept ' .. E)
touch(E)
call('PUBLISH', ARGV[2], 'removed')
return 1
