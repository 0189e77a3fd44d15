"""Secrets at rest, and the key that `bridge up` keeps."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from bridge.sealing import KeyFileError, Sealer, SealError, kept_key, new_key

OLD, NEW = SecretStr(new_key()), SecretStr(new_key())


def test_what_was_sealed_is_opened_and_hides_its_text() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal("whsec_geheim äöü")
    assert sealer.open(sealed) == "whsec_geheim äöü"
    assert "geheim" not in sealed
    assert sealed.isascii()
    assert sealer.seal("whsec_geheim äöü") != sealed


def test_a_new_key_in_front_seals_and_the_old_one_still_opens() -> None:
    sealed = Sealer([OLD]).seal("x")
    both = Sealer([NEW, OLD])
    assert both.open(sealed) == "x"
    assert Sealer([NEW]).open(both.seal("x")) == "x"


def test_a_missing_key_and_a_changed_text_are_told_without_either() -> None:
    sealed = Sealer([OLD]).seal("x")
    for sealer, text in ((Sealer([NEW]), sealed), (Sealer([OLD]), sealed[:-4] + "AAA="), (Sealer([OLD]), "ü")):
        with pytest.raises(SealError, match="BRIDGE_SECRET_KEY lacks the key") as caught:
            sealer.open(text)
        assert sealed not in str(caught.value)


def test_the_kept_key_is_the_same_every_time_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "secret.key"
    first = kept_key(path)
    assert kept_key(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret.key"]
    path.chmod(0o644)
    kept_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Sealer([first]).open(Sealer([kept_key(path)]).seal("x")) == "x"


def test_all_who_ask_at_once_get_one_key(tmp_path: Path) -> None:
    found: list[SecretStr] = []
    threads = [threading.Thread(target=lambda: found.append(kept_key(tmp_path / "k"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "text",
    ["", "no key\n", "ü" * 44, f"{OLD.get_secret_value()},{NEW.get_secret_value()}"],
    ids=["empty", "words", "not ASCII", "two keys"],
)
def test_a_file_without_a_key_is_refused_and_left_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text, "utf-8")
    with pytest.raises(KeyFileError, match="/k"):
        kept_key(path)
    assert path.read_text("utf-8") == text


def test_a_directory_that_cannot_be_had_is_told_with_its_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KeyFileError, match="set BRIDGE_SECRET_KEY"):
        kept_key(tmp_path / "file" / "k")
