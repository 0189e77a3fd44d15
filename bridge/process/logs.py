"""Logs: readable lines on a terminal, one JSON object per line elsewhere, no secrets in either.

Code must not log secrets in the first place. As a second safeguard, secrets of known shapes in messages, fields and
tracebacks are replaced by `***` here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Literal, TextIO

from bridge import tracing
from bridge.clock import rfc3339
from bridge.config_values import masked_url
from bridge.printable import printable

Format = Literal["console", "json"]

#: Shape of a secret → its replacement, which keeps the secret's name.
_SECRETS = (
    (re.compile(r"\b(access_token=)[^&\s\"'#]+", re.IGNORECASE), r"\1***"),
    (
        re.compile(r"(authorization[\"']?\s*[:=,]\s*b?[\"']?)(?:(bearer|basic)\s+)?[^\s\"',;)}\]]+", re.IGNORECASE),
        r"\1***",
    ),
    (re.compile(r"(x-api-key[\"']?\s*[:=,]\s*b?[\"']?)[^\s\"',;)}\]]+", re.IGNORECASE), r"\1***"),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), r"\1***"),
    (re.compile(r"\bwhsec_[A-Za-z0-9+/=_-]+"), "whsec_***"),
    (re.compile(r"\bphak_[A-Za-z0-9_-]+"), "phak_***"),
)

#: Attributes that every record has; any others came by `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

#: Libraries that log a line with a URL per request or connection at INFO; they log from WARNING on.
_VERBOSE = ("httpx", "httpcore", "asyncio", "hpack", "uvicorn.access")

_COLOURS = {"WARNING": "33", "ERROR": "31", "CRITICAL": "31;1", "DEBUG": "2"}


def configure(format: Format | None = None, level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every log record to `stream` (default: stderr), replacing what was configured before.

    Without a format: `console` on a terminal, else `json` (docs/contract.md#environment).
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    chosen = format or ("console" if out.isatty() else "json")
    handler.setFormatter(JsonLines() if chosen == "json" else Console(colours=out.isatty()))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # A handler of uvicorn's own would write what the formatters here redact.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(logging.WARNING)


def redacted(text: str) -> str:
    """The text with every secret of a known shape replaced; idempotent."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return masked_url(text)


def fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields that came by `extra`, after the ids of the trace that the present task serves."""
    trace = tracing.current.get()
    given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**trace.ids, **given} if trace else given


class JsonLines(logging.Formatter):
    """`{"ts", "level", "logger", "msg", …fields, "error"}`, always one line: JSON escapes every line end."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "ts": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": redacted(record.getMessage()),
        }
        extra = {name: _plain(value) for name, value in fields(record).items()}
        trace = {"error": redacted(self.formatException(record.exc_info))} if record.exc_info else {}
        return json.dumps({**extra, **entry, **trace}, ensure_ascii=True)


def _plain(value: object) -> object:
    """The value as JSON can hold it, without secrets; a number stays a number, except NaN and infinities."""
    if value is None or isinstance(value, bool | int | float):
        return value if value == value and value not in (float("inf"), float("-inf")) else str(value)
    return redacted(str(value))


class Console(logging.Formatter):
    """`12:34:56 warning bridge.store: message  key=value`, then the traceback if there is one.

    Control characters in message and fields are escaped.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        extra = "".join(f"  {name}={printable(redacted(str(value)))}" for name, value in fields(record).items())
        message = printable(redacted(record.getMessage()))
        head = f"{self.formatTime(record, self.datefmt)} {record.levelname.lower():<7}"
        if self._colours and record.levelname in _COLOURS:
            head = f"\x1b[{_COLOURS[record.levelname]}m{head}\x1b[0m"
        line = f"{head} {record.name}: {message}{extra}"
        if record.exc_info:
            line += "\n" + redacted(self.formatException(record.exc_info))
        return line
