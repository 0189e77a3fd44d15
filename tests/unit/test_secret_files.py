"""Secrets that stand in files of their own, as the settings read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from bridge.config import SettingsError, load_settings
from bridge.secret_files import SecretFile


def test_each_secret_may_stand_in_a_file_that_its_variable_names(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = Fernet.generate_key().decode()
    contents = {
        "PHALA_CLOUD_API_KEY": "phak_key\n",
        "PHALA_WEBHOOK_SECRET": " hook",
        "REDIS_URL": "redis://:pw@h:1/0\n",
        "BRIDGE_TOKENS": "ops:one:admin\nweb:two:read:a,b\n",
        "BRIDGE_SECRET_KEY": f"{key}\r\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        env.setenv(f"{name}_FILE", name)
    (tmp_path / ".env").write_text("REDIS_URL_FILE=elsewhere\n")
    settings = load_settings()
    assert settings.api_key is not None
    assert (settings.api_key.get_secret_value(), settings.redis_url) == ("phak_key", "redis://:pw@h:1/0")
    assert settings.phala_secrets == ("hook",)
    assert [each.get_secret_value() for each in settings.secret_key] == [key]
    assert [each.name for each in settings.tokens] == ["ops", "web"]
    assert {name: origin for name, _, origin in settings.in_force() if name in contents} == {
        name: f"{name}_FILE" for name in contents
    }
    assert settings.warnings == ()
    assert load_settings(redis_url="redis://given").redis_url == "redis://given"


def test_each_fault_of_a_secrets_file_is_one_line_that_shows_neither_path_nor_content(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "large").write_text("canary" * 50_000)
    (tmp_path / "odd").write_bytes(b"canary\xff")
    (tmp_path / "wrong").write_text("ops:canary")
    os.mkfifo(tmp_path / "pipe")
    both = "BRIDGE_TOKENS and BRIDGE_TOKENS_FILE are both set: unset one of them"
    for path, told in {
        "canary": "BRIDGE_TOKENS_FILE: the file cannot be read (No such file or directory)",
        ".": "BRIDGE_TOKENS_FILE: the file cannot be read (Is a directory)",
        "empty": "BRIDGE_TOKENS_FILE: the file is empty",
        "large": "BRIDGE_TOKENS_FILE: the file is larger than 256 KiB",
        "odd": "BRIDGE_TOKENS_FILE: the file is not UTF-8 text",
        "pipe": "BRIDGE_TOKENS_FILE: it is not the path of a regular file",
        "wrong": "BRIDGE_TOKENS (from BRIDGE_TOKENS_FILE) must be name:secret:scope[:cvm,cvm…], separated by spaces; "
        "scope: read or admin; entry 1 is not name:secret:scope",
    }.items():
        env.setenv("BRIDGE_TOKENS_FILE", path)
        assert complaints() == [told]
    env.setenv("BRIDGE_TOKENS", "malformed")
    env.setenv("PORT", "x")
    assert sorted(each.partition(" must")[0] for each in complaints()) == [both, "PORT"]


def complaints() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return str(caught.value).splitlines()


def test_a_secrets_file_is_at_another_version_after_each_way_to_change_it(tmp_path: Path) -> None:
    seen = set[object]()

    def changed() -> bool:
        known = len(seen)
        seen.add(file.version())
        return len(seen) > known

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    file = SecretFile(str(tmp_path / "tokens"))
    assert changed()
    assert not changed()
    (tmp_path / "..new").symlink_to("two")  # as Kubernetes does
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert changed()
    assert file.read() == "two"
    (tmp_path / "draft").write_text("6")
    (tmp_path / "draft").rename(tmp_path / "tokens")
    assert changed()
    (tmp_path / "tokens").unlink()
    assert changed()
    assert file.version() is None
