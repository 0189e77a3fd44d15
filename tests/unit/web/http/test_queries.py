from __future__ import annotations

import pytest
from starlette.requests import Request

from bridge.web.http import parameters
from bridge.web.http.problems import ProblemError, check_names


def request(query: str, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": raw})


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-11-24T16:01:59.319Z", 1795536119319),
        ("2026-11-24t16:01:59.319z", 1795536119319),
        ("2026-11-24T16:01:59.3199999Z", 1795536119319),
        ("2026-11-24T17:01:59.319%2B01:00", 1795536119319),
        ("2026-11-24T17:01:59.319+01:00", 1795536119319),
        ("2026-11-24T15:01:59-01:00", 1795536119000),
        ("2026-11-24T16:01:59", 1795536119000),
        ("1969-12-31T23:59:59Z", 0),
    ],
)
def test_since_is_a_time_to_the_millisecond(text: str, milliseconds: int) -> None:
    assert parameters.event_query(f"since={text}".encode()).since == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1795536119",
        "1710123112345",  # fromisoformat takes this for a minute of the year 1710
        "2026-W47-2",
        "20261124T160159Z",
        "2026-13-01T00:00:00Z",
        "2026-11-24T25:00:00Z",
        "0001-01-01T00:00:00%2B99:99",
        "2026-11-24T16:01:59Z ",
        "2026-11-24T16:01:59Z%00",
        "%D9%A2026-11-24T16:01:59Z",
    ],
)
def test_a_malformed_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parameters.event_query(f"since={text}".encode())
    assert caught.value.status == 422
    assert caught.value.faults == (("since", caught.value.detail),)


@pytest.mark.parametrize("text", ["0", "1001", "-1", "1e3", "", "1.0", "%D9%A1", "9" * 5000])
def test_a_limit_outside_its_bounds_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parameters.LIMIT.read(request(f"limit={text}").query_params)
    assert (caught.value.status, caught.value.faults) == (422, (("limit", "a whole number from 1 to 1000"),))


def test_an_unknown_parameter_is_refused_by_name() -> None:
    with pytest.raises(ProblemError) as caught:
        check_names(request("limit=1&colour=red").query_params, ("limit",))
    assert [field for field, _ in caught.value.faults] == ["colour"]


@pytest.mark.parametrize("padding", ["", 2 * f"&cvm={250 * 'x'}"], ids=["short", "longer than what is remembered"])
def test_a_remembered_query_is_parsed_the_same_and_a_wrong_one_stays_wrong(padding: str) -> None:
    for _ in range(2):
        query = parameters.event_query(f"cvm=a&cvm=b&cvm=a&snapshot=0&access_token=t{padding}".encode())
        assert [each.text for each in query.cvms[:2]] == ["a", "b"]
        assert not query.snapshots
        with pytest.raises(ProblemError):
            parameters.event_query(f"snapshot=2{padding}".encode())


def cursor(query: str, **headers: str) -> str | None:
    return parameters.cursor(request(query, **headers), parameters.event_query(query.encode()))


def test_the_header_is_the_cursor_where_there_are_two() -> None:
    assert cursor("last_event_id=1-0", last_event_id="2-0") == "2-0"
    assert cursor("last_event_id=1-0") == "1-0"
    assert cursor("") is None
