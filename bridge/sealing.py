"""Secrets at rest: sealed with BRIDGE_SECRET_KEY before they reach Redis (`docs/contract.md#environment`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from bridge.config_values import fernet_keys


class SealError(Exception):
    """a sealed value cannot be opened: BRIDGE_SECRET_KEY lacks the key that it was sealed with"""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


class KeyFileError(Exception):
    """the key file cannot be used; the message gives the reason in one line"""


def new_key() -> str:
    """A key as BRIDGE_SECRET_KEY takes it."""
    return Fernet.generate_key().decode()


class Sealer:
    """Seals with the first key and opens with all of them: a new key goes in front, an old one leaves later."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._keys = {_key_id(key): Fernet(key.get_secret_value()) for key in keys}
        self.first = _key_id(keys[0])
        """The id of the key that seals. An id does not tell the key."""

    def seal(self, text: str, key_id: str | None = None) -> str:
        """ASCII; different each time. `key_id`: the id of one of the keys, by default of the first."""
        return self._keys[key_id or self.first].encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises SealError if no key opens it or the value was changed."""
        return self._opened(sealed)[1]

    def opener(self, sealed: str) -> str | None:
        """The id of the key that opens it; None if none does."""
        try:
            return self._opened(sealed)[0]
        except SealError:
            return None

    def renewed(self, sealed: str) -> str:
        """The same text sealed with the first key; unchanged if it is already, or if no key opens it."""
        try:
            key_id, text = self._opened(sealed)
        except SealError:
            return sealed
        return sealed if key_id == self.first else self.seal(text)

    def _opened(self, sealed: str) -> tuple[str, str]:
        for key_id, fernet in self._keys.items():
            with contextlib.suppress(InvalidToken, UnicodeError):
                return key_id, fernet.decrypt(sealed.encode()).decode()
        raise SealError


def _key_id(key: SecretStr) -> str:
    return hashlib.sha256(f"bridge key id {key.get_secret_value()}".encode()).hexdigest()[:16]


def kept_key(path: Path) -> SecretStr:
    """The key in the file at `path`, readable by its owner only; makes the file if there is none.

    Several processes may ask at once: all get the same key. Raises KeyFileError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        text = path.read_text("ascii").strip()
        path.chmod(0o600)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise KeyFileError(f"{path}: {reason}; set BRIDGE_SECRET_KEY (`bridge keygen` prints one)") from None
    try:
        (key,) = fernet_keys(text)
    except ValueError:  # no key, several or a malformed one
        raise KeyFileError(
            f"{path} does not hold a Fernet key: restore the key that was in it, or remove the file (which loses the "
            "secrets of all webhooks made so far)"
        ) from None
    return key


def _make(path: Path) -> None:
    """Writes the file completely or not at all, and never replaces an existing one."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(new_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
