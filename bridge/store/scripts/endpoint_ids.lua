-- Names of registered endpoints, ascending. ARGV: limits, wake channel, the name before the first ('' none), most names.
-- Returns {names, registrations that were removed because they had no name that the bridge gives}.
local names, removed = P .. ':ids', 0
if call('ZCOUNT', names, 0, 0) ~= call('HLEN', P .. ':endpoints') then removed = restore_ids() end
local from = ARGV[3] == '' and '-' or '(' .. ARGV[3]
return {call('ZRANGEBYLEX', names, from, '+', 'LIMIT', 0, ARGV[4]), removed}
