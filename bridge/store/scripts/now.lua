-- The time of the server that has the namespace's keys; a cluster's nodes have a clock each. KEYS: any of the namespace.
return now
