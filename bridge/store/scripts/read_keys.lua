-- The check values of the keys that seal. KEYS: webhooks. ARGV: limits.
-- Returns {endpoints, their revision, check values as HGETALL}.
return {call('HLEN', P .. ':endpoints'), current_revision(), call('HGETALL', P .. ':keys')}
