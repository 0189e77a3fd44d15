"""bridge: one upstream stream per CVM, one numbered log, any number of subscribers."""

__version__ = "0.1.0"
