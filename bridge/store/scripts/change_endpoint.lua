-- Compare and set. KEYS: webhooks, meta. ARGV: limits, wake channel, id, JSON as it was, JSON to be,
--   most lanes at once and rate ('' any), id of the key that sealed ('' any).
-- Returns {1, disabled reason or nil}, {0, ''} where it has changed meanwhile, or {'unregistered', ''} where that key has
-- no check value.
local E = ARGV[3]
if ARGV[8] ~= '' and call('HEXISTS', P .. ':keys', ARGV[8]) == 0 then return {'unregistered', ''} end
if call('HGET', P .. ':endpoints', E) ~= ARGV[4] then return {0, ''} end
if ARGV[4] ~= ARGV[5] then
  call('HSET', P .. ':endpoints', E, ARGV[5])
  set_own_limits(E, ARGV[6], ARGV[7])
  if not disabled(E) then apart(E, rescore) end
  touch(E)
  call('PUBLISH', ARGV[2], 'changed')
end
return {1, call('HGET', P .. ':disabled', E)}
