"""Redis: the log, the snapshots, watches, leases and slots. Nothing outside this package speaks Redis."""
