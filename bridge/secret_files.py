"""A secret in a file of its own, as Docker and Kubernetes mount it: the variable `<NAME>_FILE` holds the path.

No error shows the path: a secret that was put into the wrong variable would be one.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

MOST_BYTES = 256 * 1024
"""Twice what one environment variable of Linux can hold; a token file of this size has thousands of tokens."""

Version = tuple[int, ...]


class SecretFileError(Exception):
    """the file cannot be used; the text completes "<NAME>_FILE: …" and has nothing of the file's content"""


@dataclass(frozen=True, slots=True)
class SecretFile:
    """Links are followed with each call, so that a link that leads to another file is a change."""

    path: str

    def version(self) -> Version | None:
        """What changes with the file, or with a link on the way to it; None: there is none."""
        try:
            found = os.stat(self.path)
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def read(self) -> str:
        """The content without blanks around it, never the empty text. Raises SecretFileError."""
        try:
            content = self._content()
            text = content.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise SecretFileError("the file is not UTF-8 text") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "its path is malformed"
            raise SecretFileError(f"the file cannot be read ({why})") from None
        if len(content) > MOST_BYTES:
            raise SecretFileError(f"the file is larger than {MOST_BYTES // 1024} KiB")
        if not text:
            raise SecretFileError("the file is empty")
        return text

    def _content(self) -> bytes:
        """One byte more than allowed where there is more. A pipe without a writer must not hold up the start."""
        with open(self.path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise SecretFileError("it is not the path of a regular file")
            return opened.read(MOST_BYTES + 1)
