-- The consumer groups of the log, and what was seen of them before; behind `group_rules.lua`.
-- KEYS: log, the hash of what was seen. ARGV: the most groups that are listed.
-- Returns {the server's time in ms, id of the log's last entry, 1 if there are more groups, name and last delivered id
-- of each group, fields and values of the hash}.
local most = tonumber(ARGV[1])
local groups, listed = groups_of(KEYS[1], most), {}
for i, group in ipairs(groups or {}) do listed[i] = {printable_name(group), group['last-delivered-id']} end
if call('HLEN', KEYS[2]) > 2 * most then call('DEL', KEYS[2]) end  -- the bridge did not write it
local newest = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
return {now, (newest[1] or {'0-0'})[1], groups and 0 or 1, listed, call('HGETALL', KEYS[2])}
