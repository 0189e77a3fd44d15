-- Queue events for endpoints and move the position, if it is where the caller read from.
-- KEYS: webhooks, the log's meta. ARGV: limits, birth, position, partial, revision, position to be, partial to be;
--   then per event: id, ran (1/0), JSON, cvm id, number of endpoints, their ids.
-- `partial`: the endpoint up to which (by name) the event behind the position has been queued already.
-- Returns {1, queued, skipped for disabled endpoints, skipped beyond the most that may wait}, or {0}.
local place = call('HMGET', P, 'birth', 'position', 'partial', 'revision')
if call('HGET', KEYS[2], 'birth') ~= ARGV[2] or place[1] ~= ARGV[2] or place[2] ~= ARGV[3]
  or (place[3] or '') ~= ARGV[4] or (place[4] or '0') ~= ARGV[5] then return {0} end
call('HSET', P, 'position', ARGV[6], 'partial', ARGV[7])
local queued, skipped, beyond, touched, i = 0, 0, 0, {}, 8
while ARGV[i] do
  local event, cvm, count = ARGV[i], ARGV[i + 3], tonumber(ARGV[i + 4])
  if count > 0 then call('HSET', of('event', event), 'ran', ARGV[i + 1], 'json', ARGV[i + 2]) end
  for n = i + 5, i + 4 + count do
    local E = ARGV[n]
    local off = disabled(E)
    local id = make(E, cvm, event, off and 'skipped' or 'pending')
    if id and off then
      list_as(E, id, 'skipped')
      skipped = skipped + 1
    elseif id then
      enqueue(E, cvm, id)
      touched[E] = true
      queued = queued + 1
    end
  end
  i = i + 5 + count
end
for E in pairs(touched) do
  beyond = beyond + overflow(E)
  rescore(E)
end
keep_stamp()
return {1, queued, skipped, beyond}
