"""The route of stream tokens, for browsers whose EventSource cannot send headers (`docs/contract.md#http`)."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from bridge.web.api import answers
from bridge.web.http.access import STREAM_TOKEN_SECONDS, Access
from bridge.web.http.operations import EVENTS, Call, Operation, json_answer
from bridge.web.http.responses import json_response


@dataclass(frozen=True, slots=True)
class StreamTokenRoutes:
    """A stream token cannot make another one: the scope is `token`."""

    access: Access

    @Operation(
        "POST /v1/stream-tokens",
        EVENTS,
        {201: json_answer(f"Valid for {STREAM_TOKEN_SECONDS} seconds", answers.StreamToken)},
        scope="token",
        uses_redis=False,
    )
    async def make_stream_token(self, call: Call) -> Response:
        """A token for a browser's EventSource.

        A browser cannot send headers with an EventSource: it passes this token as `?access_token=`. The token reads
        what its maker may read, and opens connections, which may outlive it.
        """
        token, seconds = self.access.stream_token(call.principal)
        return json_response(answers.StreamToken(access_token=token, expires_in=seconds), 201)
