-- Give the watches, pins and demand another revision than any before, also on a server that lost its data.
-- KEYS: revision. ARGV: wake channel, why ('' wakes nobody). Returns 1.
local before = redis.pcall('GET', KEYS[1])
local known = type(before) == 'string' and tonumber(before) or 0
if not (known >= 0 and known < 2 ^ 53 - 1) then known = 0 end  -- the bridge did not write it
call('SET', KEYS[1], whole(math.max(known + 1, micros)))
if ARGV[2] ~= '' then call('PUBLISH', ARGV[1], ARGV[2]) end
return 1
