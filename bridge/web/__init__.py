"""The front end: events over SSE and JSON, watches, slots, health. Reads the store, holds no API key."""
