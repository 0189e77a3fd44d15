"""Fan-out to ten thousand subscribers: bridge, nchan, sse-starlette and a bare `send()` loop, in turns in one run."""
