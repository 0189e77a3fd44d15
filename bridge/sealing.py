"""Secrets at rest: sealed with BRIDGE_SECRET_KEY before they reach Redis (contract section 4)."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from bridge.config_values import fernet_keys


class SealError(Exception):
    """a sealed value cannot be opened: BRIDGE_SECRET_KEY lacks the key that it was sealed with"""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class KeyFileError(Exception):
    """the key file cannot be used; one line says why"""


def new_key() -> str:
    """A key as BRIDGE_SECRET_KEY takes it."""
    return Fernet.generate_key().decode()


class Sealer:
    """Seals with the first key and opens with all of them: a new key goes in front, an old one leaves later."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._fernet = MultiFernet([Fernet(key.get_secret_value()) for key in keys])

    def seal(self, text: str) -> str:
        """ASCII; different each time."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises SealError where no key fits, or the value was tampered with."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except (InvalidToken, UnicodeError):
            raise SealError from None


def kept_key(path: Path) -> SecretStr:
    """The key in the file at `path`, readable by its owner alone; made where there is none yet.

    Several processes may ask at once: all get the same key. Raises KeyFileError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        text = path.read_text("ascii").strip()
        path.chmod(0o600)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise KeyFileError(f"{path}: {reason}; set BRIDGE_SECRET_KEY (`bridge keygen` prints one)") from None
    return _checked(path, text)


def _make(path: Path) -> None:
    """Whole or not at all, and never in place of another's."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(new_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _checked(path: Path, text: str) -> SecretStr:
    try:
        keys = fernet_keys(text)
    except ValueError:
        keys = ()
    if len(keys) != 1:
        raise KeyFileError(
            f"{path} holds no key: put the one back that was in it, or remove the file (then the "
            "secrets of the webhooks made so far are lost)"
        )
    key = keys[0]
    assert isinstance(key, SecretStr)
    return key
