"""`bridge listen --forward-to`: posts a webhook on as it came, and answers as the other receiver answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import httpx
from starlette.responses import PlainTextResponse, Response

SECONDS = 30.0
"""For connecting, and between two parts of an answer: longer than an attempt of the bridge usually lasts."""

MOST_ANSWER = 64 * 1024
"""Bytes of an answer's body that are passed on: the bridge reads no more."""

_OF_THE_CONNECTION = {
    *(b"host", b"content-length", b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    *(b"proxy-connection", b"expect"),
}

RawHeaders = Sequence[tuple[bytes, bytes]]


class Forwarding:
    """Posts to one URL; `http` must not add headers of its own."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def post(self, headers: RawHeaders, body: bytes) -> Response:
        """The other receiver's answer; 502 if there is none, 504 if it takes too long."""
        timeout = {"timeout": httpx.Timeout(SECONDS).as_dict()}
        request = httpx.Request("POST", self._url, headers=_passed_on(headers), content=body, extensions=timeout)
        try:
            answer = await self._http.send(request, stream=True)
            try:
                return await _passed_back(answer)
            finally:
                await answer.aclose()
        except httpx.TimeoutException:
            return PlainTextResponse(f"{self._url} did not answer within {SECONDS:.0f} s\n", 504)
        except httpx.HTTPError as error:
            return PlainTextResponse(f"{self._url} did not answer ({type(error).__name__})\n", 502)


async def _passed_back(answer: httpx.Response) -> Response:
    body = b""
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) >= MOST_ANSWER:
            break
    made = Response(body[:MOST_ANSWER], answer.status_code)
    made.raw_headers += _passed_on(answer.headers.raw)
    return made


def _passed_on(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if name.lower() not in _OF_THE_CONNECTION]


def is_forwardable(url: str) -> bool:
    """Whether it is an http or https URL with a host."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)
