"""bridge: one upstream stream per CVM, one numbered log, any number of subscribers."""

from __future__ import annotations

__version__ = "0.1.0"
