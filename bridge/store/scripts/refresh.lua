-- Write snapshots that are newer than the stored ones without an event. KEYS: leader, state, watches.
-- ARGV: holder, epoch, then cvm id, snapshot JSON and the id of its last event in turns. Returns 1, or 0: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
for i = 3, #ARGV, 3 do
  -- A command that arrives late must not undo an event that came meanwhile, nor the end of the watch.
  local stored = string.match(call('HGET', KEYS[2], ARGV[i]) or '', '"event_id":"([%d-]*)"}$')
  local ms, counter = id_parts(stored)
  local new_ms, new_counter = id_parts(ARGV[i + 2])
  local later = ms > new_ms or (ms == new_ms and counter > new_counter)
  if not later and call('ZSCORE', KEYS[3], ARGV[i]) then call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
return 1
