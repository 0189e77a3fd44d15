-- Write or prolong what the leader tells about itself: see store/leader_status.py. KEYS: leader, status, polling.
-- ARGV: holder, epoch, seconds to keep it, the status as JSON ('': as it is), how many exceptions there must be (-1: all
-- are written anew), then CVM and reason of each one that changed in turns; an empty reason deletes it.
-- Returns 1, 0: fenced, or -1: Redis has lost what was written before.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
if ARGV[5] == '-1' then
  call('DEL', KEYS[3])
elseif redis.pcall('HLEN', KEYS[3]) ~= tonumber(ARGV[5]) or call('TYPE', KEYS[2]).ok ~= 'string' then
  return -1
end
if ARGV[4] == '' then call('EXPIRE', KEYS[2], ARGV[3]) else call('SET', KEYS[2], ARGV[4], 'EX', ARGV[3]) end
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then call('HDEL', KEYS[3], ARGV[i]) else call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
end
call('EXPIRE', KEYS[3], ARGV[3])
return 1
