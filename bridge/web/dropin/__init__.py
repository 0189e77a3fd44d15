"""Upstream's state route, answered from what the bridge knows (contract section 7)."""
