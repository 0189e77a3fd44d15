"""Upstream's state route, answered from the bridge's own states (`docs/contract.md#the-drop-in`)."""
