"""Webhooks: what is sent, how it is signed, when and in which order; speaks to Redis through `bridge.store` alone."""
