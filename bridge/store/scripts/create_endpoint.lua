-- Register an endpoint; behind `log_rules.lua`. ARGV: limits, wake channel, id, JSON up to its last members, enabled
--   (1/0), reason, most endpoints, most lanes at once and rate ('' any), owner ('': not counted), most of one owner,
--   id of the key that sealed ('' any). Returns {the last entry id before it, that log's id}, 'exists', 'full', or
--   'unregistered': that key has no check value.

-- Whether the owner has so many already; forgets those that are gone. A key of another type counts nothing.
local function owns_most(owned, owner, most)
  local known = redis.pcall('SCARD', owned)
  if type(known) ~= 'number' or known < most then return false end
  for _, id in ipairs(call('SMEMBERS', owned)) do
    local record = call('HGET', P .. ':endpoints', id) or ''
    if not string.find(record, '"owner":"' .. owner .. '"', 1, true) then call('SREM', owned, id) end
  end
  return call('SCARD', owned) >= most
end

local E, meta = ARGV[3], call('HMGET', KEYS[2], 'last_id', 'birth')
local known = call('HGET', P .. ':endpoints', E)
if known then
  -- The same command again after a lost reply: any other command has other sealed values.
  if string.sub(known, 1, #ARGV[4]) ~= ARGV[4] then return 'exists' end
  return {string.match(known, '"created_after":"([^"]*)","created_birth":"([^"]*)"}$')}
end
if ARGV[12] ~= '' and call('HEXISTS', P .. ':keys', ARGV[12]) == 0 then return 'unregistered' end
local count = call('HLEN', P .. ':endpoints')
local owned = ARGV[10] ~= '' and of('owned', ARGV[10])
if count >= tonumber(ARGV[7]) or (owned and owns_most(owned, ARGV[10], tonumber(ARGV[11]))) then return 'full' end
local after = meta[1] or '0-0'
if not is_id(after) then after = (call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1] or {'0-0'})[1] end
local log_id = string.match(meta[2] or '', '^[^"\\%c]*$') or ''
if count == 0 then
  -- No endpoint waits for earlier events.
  call('HSET', P, 'position', after, 'birth', log_id, 'partial', '')
end
call('HSET', P .. ':endpoints', E, ARGV[4] .. ',"created_after":"' .. after .. '","created_birth":"' .. log_id .. '"}')
call('ZADD', P .. ':ids', 0, E)
if owned then redis.pcall('SADD', owned, E) end
if ARGV[5] == '0' then call('HSET', P .. ':disabled', E, ARGV[6]) else call('HDEL', P .. ':disabled', E) end
set_own_limits(E, ARGV[8], ARGV[9])
touch(E)
call('PUBLISH', ARGV[2], 'created')
return {after, log_id}
