-- What every script shares; `load_script` puts it in front of each. Nothing here needs more than Redis 6.2.
-- The server's clock is the only one that all processes share; `now` is in milliseconds since the Unix epoch.
local call = redis.call
local clock = call('TIME')
local micros = clock[1] * 1000000 + clock[2]
local now = math.floor(micros / 1000)

-- A number as decimal digits: Lua itself would write large ones as 1e+15.
local function whole(number) return string.format('%.0f', number) end

-- The fence: whether this holder leads in this epoch.
local function leads(leader_key, holder, epoch)
  local leader = call('HMGET', leader_key, 'holder', 'epoch')
  return leader[1] == holder and leader[2] == epoch
end

-- A log entry's id, `<ms>-<counter>`, as two numbers that compare; {0, 0} for anything else.
local function id_parts(id)
  local ms, counter = string.match(id or '', '^(%d+)-(%d+)$')
  return tonumber(ms or '0'), tonumber(counter or '0')
end
