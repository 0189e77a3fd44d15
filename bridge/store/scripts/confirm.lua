-- Write snapshots whose observed_at moved without an event. KEYS: leader, state, watches.
-- ARGV: holder, epoch, then cvm id and snapshot JSON in turns. Returns 1, or 0: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
for i = 3, #ARGV, 2 do
  if call('ZSCORE', KEYS[3], ARGV[i]) then call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return 1
