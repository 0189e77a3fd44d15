-- All endpoints, or the changes since a revision. KEYS: webhooks, meta. ARGV: limits, wake channel, revision of the caller (0: none).
-- Returns {revision, 1, endpoints, disabled}, both as HGETALL, or {revision, 0, changes} since then, flat: endpoint, JSON
-- (nil: removed), disabled reason or nil.
local known, revision = tonumber(ARGV[3]), current_revision()
local low_water_mark = count(call('HGET', P, 'floor')) or 0
-- No endpoint has this revision: its endpoint has changed again since, or a lost master gave the revision.
local foreign = known ~= tonumber(revision) and call('ZCOUNT', P .. ':changed', ARGV[3], ARGV[3]) == 0
if low_water_mark == 0 or known < low_water_mark or known > tonumber(revision) or foreign then
  return {revision, 1, call('HGETALL', P .. ':endpoints'), call('HGETALL', P .. ':disabled')}
end
local changes = {}
for i, E in ipairs(call('ZRANGEBYSCORE', P .. ':changed', '(' .. ARGV[3], '+inf')) do
  changes[3 * i - 2], changes[3 * i - 1] = E, call('HGET', P .. ':endpoints', E)
  changes[3 * i] = call('HGET', P .. ':disabled', E)
end
return {revision, 0, changes}
