-- The time of the server that has the namespace's keys; a cluster's nodes have a clock each. KEYS: any of the namespace.
local time = redis.call('TIME')
return time[1] * 1000 + math.floor(time[2] / 1000)
