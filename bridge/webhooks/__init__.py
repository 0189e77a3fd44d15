"""The sending side of webhooks: formats, signatures, schedule, order. It uses Redis only through `bridge.store`."""
