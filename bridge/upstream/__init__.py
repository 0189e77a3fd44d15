"""Phala Cloud's side: one leader that streams, polls and writes the log. The only holder of the API key."""
