-- Compare and set of the check values. KEYS: webhooks. ARGV: limits, revision of the endpoints as it was, how many check
--   values there were, those as key id and value; then the same of those to be. Returns 1, or 0 where one has changed.
local there = tonumber(ARGV[3])
if current_revision() ~= ARGV[2] or call('HLEN', P .. ':keys') ~= there then return 0 end
for i = 4, 2 * there + 2, 2 do
  if call('HGET', P .. ':keys', ARGV[i]) ~= ARGV[i + 1] then return 0 end
end
call('DEL', P .. ':keys')
for i = 2 * there + 4, #ARGV, 2 do call('HSET', P .. ':keys', ARGV[i], ARGV[i + 1]) end
return 1
