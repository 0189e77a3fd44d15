"""When refused clients are told to come back."""

from __future__ import annotations

import pytest

from bridge.web.http.problems import ProblemError, ProblemType


@pytest.mark.parametrize("type", [each for each in ProblemType if each.retry_after])
def test_clients_that_are_refused_together_are_not_told_to_return_together(type: ProblemType) -> None:
    told = [int(ProblemError(type).headers["Retry-After"]) for _ in range(200)]
    assert set(told) == set(range(type.retry_after, 2 * type.retry_after + 1))
