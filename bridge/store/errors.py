"""Errors between the bridge and Redis. `store/connection.py` translates redis-py's own exceptions."""

from __future__ import annotations


class StoreError(Exception):
    """Redis refused a command"""

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "")


class StoreUnavailableError(StoreError):
    """Redis cannot be reached or did not answer in time; the command may or may not have run"""


class FencedError(StoreError):
    """another process leads now; this one may not write any more"""


class LostTailError(StoreError):
    """Redis lost events that it had confirmed"""

    def __init__(self, sequence: int, last_id: str) -> None:
        super().__init__()
        # Of the last event that it has.
        self.sequence = sequence
        self.last_id = last_id


class NearlyFullError(StoreError):
    """Redis has less than a tenth of its memory (maxmemory) left: events wait in the log until it has more"""


class UnconfirmedError(StoreError):
    """no replica of Redis confirmed the write in time"""


class StillWantedError(StoreError):
    """the watch was wanted again while it was being dropped"""


class TooManyLookupsError(StoreError):
    """too many unknown references are waiting for the leader"""


class TooManyNoticesError(StoreError):
    """too many notices are waiting for a leader to write them"""


class UnknownEndpointError(StoreError):
    """there is no such endpoint"""


class EndpointExistsError(StoreError):
    """an endpoint with this id exists already"""


class EndpointDisabledError(StoreError):
    """the endpoint is disabled"""


class BrokenEndpointError(StoreError):
    """the endpoint's record in Redis cannot be read"""


class UnopenedError(StoreError):
    """BRIDGE_SECRET_KEY does not open what is sealed in Redis"""


class TooManyEndpointsError(StoreError):
    """there are as many endpoints as the bridge allows"""


class UnknownDeliveryError(StoreError):
    """there is no such delivery (any more)"""


class AlreadyPendingError(StoreError):
    """the delivery waits behind another one, or is being attempted"""


class BeingAttemptedError(StoreError):
    """the delivery is being attempted"""


class FinishedDeliveryError(StoreError):
    """the delivery is delivered or given up"""
