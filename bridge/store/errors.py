"""What can go wrong between the bridge and Redis. redis-py's own exceptions end in `store/connection.py`."""

from __future__ import annotations


class StoreError(Exception):
    """Redis did not do what was asked"""

    def __str__(self) -> str:
        return super().__str__() or (type(self).__doc__ or "")


class StoreUnavailableError(StoreError):
    """Redis cannot be reached or did not answer in time; the command may or may not have run"""


class FencedError(StoreError):
    """another holder leads now: this one's epoch is spent and it may write nothing more"""


class StillWantedError(StoreError):
    """the watch was wanted again while it was being dropped"""


class TooManyLookupsError(StoreError):
    """too many unknown references are waiting for the leader"""


class UnknownEndpointError(StoreError):
    """there is no such endpoint"""


class EndpointExistsError(StoreError):
    """an endpoint of this id is there already"""


class EndpointDisabledError(StoreError):
    """the endpoint is disabled"""


class TooManyEndpointsError(StoreError):
    """there are as many endpoints as the bridge keeps"""


class UnknownDeliveryError(StoreError):
    """there is no such delivery (any more)"""


class AlreadyPendingError(StoreError):
    """the delivery is waiting to be attempted already"""
