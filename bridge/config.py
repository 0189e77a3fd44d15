"""Every setting of the bridge (docs/contract.md#environment), read once at the start and never changed.

This module has names, defaults and bounds; `bridge.config_values` parses the texts. An empty variable counts as unset.
A secret `NAME` may stand in a file instead, whose path `NAME_FILE` holds.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge import config_values, phala_signature
from bridge.config_values import Allowlist, Token
from bridge.phala_queries import DEFAULT_INTERVAL, INTERVAL_BOUNDS, TIMEOUT_BOUNDS
from bridge.secret_files import SecretFile, SecretFileError

__all__ = ["Allowlist", "Settings", "SettingsError", "Token", "load_settings"]

#: The upper bound of durations that need none; milliseconds of a year are far inside 53 bits.
YEAR = 365 * 86_400.0


class SettingsError(Exception):
    """The settings are wrong; the text has one line per variable and never a secret."""


def _setting(name: str, default: object, allowed: str, *, secret: bool = False, **bounds: Any) -> Any:
    """A field read from the variable `name`; `allowed` completes the sentence "<name> must be …"."""
    return Field(default, validation_alias=name, description=allowed, repr=not secret, **bounds)


def _whole(name: str, default: int | None, low: int, high: int, note: str = "") -> Any:
    return _setting(name, default, f"a whole number from {low} to {high}{note}", ge=low, le=high)


def _seconds(name: str, default: float, low: float, high: float, note: str = "") -> Any:
    return _setting(
        name, default, f"a number of seconds from {low:g} to {high:.0f}{note}", ge=low, le=high, allow_inf_nan=False
    )


def _parsed(parse: Callable[[str], object]) -> BeforeValidator:
    """Applies `parse` to texts; any other value is typed already."""
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


class Settings(BaseModel):
    """The settings in force. Immutable; `model_copy(update=…)` makes a changed copy.

    `Settings(namespace="x")`, by field name, reads neither the environment nor a file. List-like fields take text as
    well as typed values. Durations are seconds, sizes are bytes.
    """

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True
    )

    api_key: Annotated[SecretStr | None, _parsed(config_values.header_safe)] = _setting(
        "PHALA_CLOUD_API_KEY", None, "printable ASCII without spaces", secret=True
    )
    api_prefix: Annotated[str, _parsed(config_values.api_prefix)] = _setting(
        "PHALA_CLOUD_API_PREFIX",
        "https://cloud-api.phala.com/api/v1",
        "an http:// or https:// URL without user name, query or fragment",
    )
    webhook_secret: Annotated[SecretStr | None, _parsed(config_values.header_safe)] = _setting(
        "PHALA_WEBHOOK_SECRET", None, "printable ASCII without spaces", secret=True
    )
    public_url: Annotated[str | None, _parsed(config_values.api_prefix)] = _setting(
        "BRIDGE_PUBLIC_URL", None, "an http:// or https:// URL without user name, query or fragment"
    )
    redis_url: Annotated[str | None, _parsed(config_values.redis_url)] = _setting(
        "REDIS_URL",
        None,
        "redis://host:port/db, redis+sentinel://host:port,host:port/master, redis+cluster://host:port,host:port "
        "(with TLS: rediss…) or unix:///path",
        secret=True,
    )
    host: str | None = _setting(
        "HOST", None, "an address, a host name or unix:/path", pattern=r"^(unix:/[^\x00-\x1f]+|[A-Za-z0-9._:%-]+)$"
    )
    port: int = _whole("PORT", 8000, 0, 65535, " (0: any free port)")
    tls_cert: str | None = _setting("BRIDGE_TLS_CERT", None, "the path of a PEM file")
    tls_key: str | None = _setting("BRIDGE_TLS_KEY", None, "the path of a PEM file")
    namespace: str = _setting(
        "BRIDGE_NAMESPACE",
        "bridge",
        "1 to 64 letters, digits, dots, dashes or underscores",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
    )
    cvms: Annotated[tuple[str, ...], _parsed(config_values.references)] = _setting(
        "BRIDGE_CVMS", (), "CVM references, comma separated: ids, names, app_…, name:pattern, or * for every CVM"
    )
    max_streams: int = _whole("BRIDGE_MAX_STREAMS", 5, 0, 5)
    stream_interval: int = _whole("BRIDGE_STREAM_INTERVAL", DEFAULT_INTERVAL, *INTERVAL_BOUNDS, " (seconds)")
    stream_timeout: int = _whole("BRIDGE_STREAM_TIMEOUT", 120, *TIMEOUT_BOUNDS, " (seconds)")
    poll_interval: float = _seconds("BRIDGE_POLL_INTERVAL", 10.0, 0.1, 86_400)
    upstream_pace: Annotated[tuple[float, ...], _parsed(config_values.pace)] = _setting(
        "BRIDGE_UPSTREAM_PACE",
        config_values.DEFAULT_PACE,
        f"one or two numbers from 1 to {config_values.MOST_PACE}, the second one not smaller",
    )
    lease_seconds: float = _seconds("BRIDGE_LEASE_SECONDS", 10.0, 0.5, 3_600)
    watch_linger: float = _seconds("BRIDGE_WATCH_LINGER", 300.0, 0, YEAR)
    tokens: Annotated[tuple[Token, ...], _parsed(config_values.tokens)] = _setting(
        "BRIDGE_TOKENS", (), "name:secret:scope[:cvm,cvm…], separated by spaces; scope: read or admin", secret=True
    )
    auth: bool = _setting("BRIDGE_AUTH", True, "on or off")
    heartbeat: float = _seconds("BRIDGE_HEARTBEAT", 15.0, 0.1, 3_600)
    max_subscribers: int = _whole("BRIDGE_MAX_SUBSCRIBERS", 50_000, 1, 10_000_000)
    max_subscribers_per_token: int = _whole("BRIDGE_MAX_SUBSCRIBERS_PER_TOKEN", 0, 0, 10_000_000, " (0: no limit)")
    lookups_per_minute: int = _whole("BRIDGE_LOOKUPS_PER_MINUTE", 60, 1, 1_000_000)
    subscriber_buffer: int = _whole("BRIDGE_SUBSCRIBER_BUFFER", 262_144, 1_024, 2**30, " (bytes)")
    subscriber_max_age: float = _seconds("BRIDGE_SUBSCRIBER_MAX_AGE", 0.0, 0, YEAR, " (0: never)")
    drain_seconds: float = _seconds("BRIDGE_DRAIN_SECONDS", 5.0, 0, 3_600)
    log_length: int = _whole("BRIDGE_LOG_LENGTH", 100_000, 1, 1_000_000_000, " (events)")
    group_idle: float = _seconds("BRIDGE_GROUP_IDLE", 604_800.0, 60, YEAR)
    webhook_timeout: float = _seconds("BRIDGE_WEBHOOK_TIMEOUT", 15.0, 0.1, 3_600)
    webhook_retry: Annotated[tuple[float, ...], _parsed(config_values.waits)] = _setting(
        "BRIDGE_WEBHOOK_RETRY",
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0),
        "1 to 100 waits in seconds, from 0 to 2592000 each, comma separated",
    )
    webhook_pending: int = _whole("BRIDGE_WEBHOOK_PENDING", 10_000, 10, 20_000, " (deliveries)")
    webhook_history: int = _whole("BRIDGE_WEBHOOK_HISTORY", 1_000, 10, 5_000, " (deliveries)")
    webhook_keep: float = _seconds("BRIDGE_WEBHOOK_KEEP", 604_800.0, 60, YEAR)
    webhook_disable_after: float = _seconds("BRIDGE_WEBHOOK_DISABLE_AFTER", 432_000.0, 60, YEAR)
    webhook_allow: Annotated[Allowlist, _parsed(config_values.allowlist)] = _setting(
        "BRIDGE_WEBHOOK_ALLOW",
        Allowlist(),
        "networks (10.1.0.0/16, fd00::/8), addresses or host names, comma separated",
    )
    secret_key: Annotated[tuple[SecretStr, ...], _parsed(config_values.fernet_keys)] = _setting(
        "BRIDGE_SECRET_KEY", (), "Fernet keys as `bridge keygen` prints them, comma separated", secret=True
    )
    probe_port: int | None = _whole("BRIDGE_PROBE_PORT", None, 0, 65535, " (0: any free port)")
    passthrough: bool = _setting("BRIDGE_PASSTHROUGH", False, "on or off")
    cors_origins: Annotated[tuple[str, ...], _parsed(config_values.origins)] = _setting(
        "BRIDGE_CORS_ORIGINS", (), "origins such as https://app.example.com, comma separated, or *"
    )
    log_format: Annotated[Literal["console", "json"] | None, _parsed(str.lower)] = _setting(
        "BRIDGE_LOG_FORMAT", None, "console or json"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, _parsed(str.lower)] = _setting(
        "BRIDGE_LOG_LEVEL", None, "debug, info, warning or error"
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _files: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line per unknown `BRIDGE_*` name; the caller shows them."""
        return self._warnings

    @property
    def tokens_file(self) -> SecretFile | None:
        """The file that the tokens came from, which front ends follow."""
        path = self._files.get("BRIDGE_TOKENS")
        return None if path is None else SecretFile(path)

    @property
    def phala_secrets(self) -> tuple[str, ...]:
        """Those that verify Phala Cloud's own webhooks; with the first one, the bridge registers its webhook.

        Empty: the bridge takes no such webhooks.
        """
        if self.webhook_secret is not None:
            return (self.webhook_secret.get_secret_value(),)
        keys = self.secret_key if self.public_url is not None else ()
        return tuple(phala_signature.made_secret(key.get_secret_value()) for key in keys)

    def in_force(self) -> list[tuple[str, str, str]]:
        """(name, value, origin) of each variable in the contract's order; secrets are masked, unset values are "".

        The origin is `environment`, the name of the file or of the variable with its path, `given` (by the program) or
        `default`.
        """
        return [
            (name, config_values.shown(getattr(self, field)), self._origin(field, name))
            for field, name in variables().items()
        ]

    def _origin(self, field: str, name: str) -> str:
        return self._origins.get(name) or ("given" if field in self.model_fields_set else "default")


class _Environment(BaseSettings, Settings):
    """The same fields, read by pydantic-settings, by variable only: `port` is not `PORT`."""

    model_config = SettingsConfigDict(
        case_sensitive=True, enable_decoding=False, env_ignore_empty=True, extra="ignore", populate_by_name=False
    )


def variables() -> dict[str, str]:
    """Field name → variable, in the contract's order."""
    return {field: str(info.validation_alias) for field, info in Settings.model_fields.items()}


def file_variables() -> dict[str, str]:
    """Secret variable → the one that may hold the path of a file with its value."""
    return {name: f"{name}_FILE" for field, name in variables().items() if not Settings.model_fields[field].repr}


def load_settings(env_file: str | None = ".env", **given: object) -> Settings:
    """Reads the environment, then `env_file` if it exists. `given`, by field name, outranks both; None is not given.

    Raises SettingsError with one line per wrong variable.
    """
    names = variables()
    filed = _read_file(env_file)
    present = {**filed, **{name: text for name, text in os.environ.items() if text}}
    overrides = {names[field]: value for field, value in given.items() if value is not None}
    paths = {
        name: present[file] for name, file in file_variables().items() if file in present and name not in overrides
    }
    secrets, faults = _read_secrets(paths, present)
    build: Any = _Environment  # its arguments are variables here, which no type checker can know
    try:
        settings: Settings = build(_env_file=env_file, **secrets, **overrides)
    except ValidationError as error:
        faults = {**_complaints(error.errors(include_url=False), secrets), **faults}
    if faults:
        raise SettingsError("\n".join(faults.values()))
    origins = {name: str(env_file) for name in filed} | {
        name: "environment" for name, text in os.environ.items() if text
    }
    origins |= {name: file_variables()[name] for name in secrets}
    settings._origins = {name: origin for name, origin in origins.items() if name not in overrides}
    settings._files = paths
    settings._warnings = tuple(unknown_names({**filed, **os.environ}))
    return settings


def _read_secrets(paths: Mapping[str, str], present: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The content of the files, and a line for each that cannot be used, by secret variable."""
    secrets, faults = {}, {}
    for name, path in paths.items():
        file = file_variables()[name]
        if name in present:
            faults[name] = f"{name} and {file} are both set: unset one of them"
            continue
        try:
            secrets[name] = SecretFile(path).read()
        except SecretFileError as error:
            faults[name] = f"{file}: {error}"
    return secrets, faults


def _read_file(env_file: str | None) -> dict[str, str]:
    """The variables that the file sets. Raises SettingsError if it cannot be read."""
    try:
        found = dotenv_values(env_file) if env_file and os.path.exists(env_file) else {}
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{env_file}: cannot be read ({type(error).__name__})") from None
    return {name: text for name, text in found.items() if text}


def _complaints(errors: Iterable[ErrorDetails], from_files: Container[str]) -> dict[str, str]:
    """One line per variable, even if it has several errors."""
    fields = {name: Settings.model_fields[field] for field, name in variables().items()}
    lines: dict[str, str] = {}
    for error in errors:
        name = str(error["loc"][0]) if error["loc"] else "settings"
        info = fields.get(name)
        if info is None:
            lines.setdefault(name, f"{name}: {error['msg']}")
            continue
        source = f" (from {file_variables()[name]})" if name in from_files else ""
        lines.setdefault(name, f"{name}{source} must be {info.description}{_fault(error, secret=not info.repr)}")
    return lines


def _fault(error: ErrorDetails, *, secret: bool) -> str:
    """The end of the line: a parser's reason, which quotes no secret, or the value itself if it is no secret."""
    if error["type"] == "value_error":
        return f"; {error['ctx']['error']}"
    return "" if secret else f"; it is {config_values.quoted(error['input'])}"


#: Variables that Kubernetes sets in every pod for a Service whose name begins with "bridge".
_SERVICE_LINK = re.compile(
    r"BRIDGE_PORT|BRIDGE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


#: Variables of `bridge tail` and `bridge listen`; they are no settings of a bridge.
_CLIENT_NAMES = ("BRIDGE_URL", "BRIDGE_TOKEN")


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A warning per `BRIDGE_*` name that is neither a setting nor set by Kubernetes."""
    known = [*variables().values(), *file_variables().values(), *_CLIENT_NAMES]
    strangers = [name for name in sorted(environ) if name.startswith("BRIDGE_") and name not in known]
    return [
        f"{name} is not a setting{_nearest(name, known)}" for name in strangers if not _is_link(name, environ[name])
    ]


def _is_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value) is not None


def _nearest(name: str, known: list[str]) -> str:
    """Compares the names without the prefix that all share."""
    stems = {each.removeprefix("BRIDGE_"): each for each in known}
    near = difflib.get_close_matches(name.removeprefix("BRIDGE_"), stems, n=1, cutoff=0.6)
    return f"; did you mean {stems[near[0]]}?" if near else ""
