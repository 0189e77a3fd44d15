-- The newest delivery of each endpoint among the chosen lists. KEYS: webhooks. ARGV: limits, '(' and a stamp above all of
--   them, the lowest stamp, event ('' any), number of lists, their names, endpoint ids.
-- Returns its stamp for each endpoint, '' where there is none; with an event, of the delivery of that event. A key of
-- another type is no list.
local lists, first = {}, 6 + tonumber(ARGV[5])
for i = 6, first - 1 do lists[#lists + 1] = ARGV[i] end

local high, low = tonumber(string.sub(ARGV[2], 2)), tonumber(ARGV[3])

local function of_event(E, list)
  local score = redis.pcall('ZSCORE', of(list, E), E .. '-' .. ARGV[4])
  local stamp = type(score) == 'string' and tonumber(score)
  return stamp and stamp < high and stamp >= low and score
end

local function newest(E, list)
  local row = redis.pcall('ZREVRANGEBYSCORE', of(list, E), ARGV[2], ARGV[3], 'WITHSCORES', 'LIMIT', 0, 1)
  return not row.err and row[2]
end

local found, look = {}, ARGV[4] == '' and newest or of_event
for i = first, #ARGV do
  local best = ''
  for _, list in ipairs(lists) do
    local score = look(ARGV[i], list)
    if score and (best == '' or tonumber(score) > tonumber(best)) then best = score end
  end
  found[#found + 1] = best
end
return found
