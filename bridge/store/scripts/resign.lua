-- A planned stop: the lease ends now, and the epoch is not used again. KEYS: leader. ARGV: holder, epoch.
-- Returns 1, or 0: fenced.
if not leads(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
call('HSET', KEYS[1], 'until', '0')
return 1
