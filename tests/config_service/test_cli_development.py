"""The directory of `dev`: what it accepts, what it keeps, and whom it lets in."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from config_service.cli.development import _clean_end, claim_directory
from config_service.cli.exits import CommandError, ExitCode


def mode(path: Path) -> int:
    """Return the permission bits of a path."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_directory_is_private_from_the_beginning(tmp_path: Path) -> None:
    """The directory is 0700, its key 0600 and 64 hex characters, whatever the umask."""
    before = os.umask(0)
    try:
        key = claim_directory(tmp_path / "deep" / "data")
    finally:
        os.umask(before)
    assert mode(tmp_path / "deep" / "data") == 0o700
    assert mode(tmp_path / "deep" / "data" / "master.key") == 0o600
    assert len(bytes.fromhex(key)) == 32


def test_an_empty_directory_is_taken_and_made_private(tmp_path: Path) -> None:
    """What `mkdir` made with other permissions is fine, as nothing is in it."""
    tmp_path.chmod(0o755)
    claim_directory(tmp_path)
    assert mode(tmp_path) == 0o700


def test_the_key_is_kept(tmp_path: Path) -> None:
    """A second start finds the key of the first, and permissions that were loosened are tightened again."""
    key = claim_directory(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "master.key").chmod(0o644)
    assert claim_directory(tmp_path) == key
    assert (mode(tmp_path), mode(tmp_path / "master.key")) == (0o700, 0o600)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"thesis.txt": b"x"}, "holds other things"),
        ({"master.key": b""}, "master.key holds no master key"),
        ({"master.key": b"hunter2"}, "master.key holds no master key"),
        ({"master.key": b"\xff" * 64}, "master.key holds no master key"),
    ],
)
def test_a_directory_that_is_not_ours_is_left_as_it_is(tmp_path: Path, content: dict[str, bytes], told: str) -> None:
    """It is refused with the reason; neither its files nor its permissions change, and no content is repeated."""
    tmp_path.chmod(0o755)
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CommandError, match=told) as refused:
        claim_directory(tmp_path)
    assert refused.value.code == ExitCode.START_FAILED
    assert refused.value.__context__ is None
    assert "hunter2" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == content
    assert mode(tmp_path) == 0o755


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    """A path that cannot be a directory is refused with the system's reason."""
    (tmp_path / "data").write_text("")
    with pytest.raises(CommandError, match=r"cannot use .*: .+; give another directory"):
        claim_directory(tmp_path / "data")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_server_runs_still_cleans_up(number: signal.Signals) -> None:
    """The signal ends the block like a return with exit status 0, and the former handlers come back."""
    before = signal.getsignal(number)
    cleaned = []

    def start_up() -> None:
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(number)

    with pytest.raises(SystemExit) as ended, _clean_end():
        start_up()
    assert ended.value.code == 0
    assert cleaned == [number]
    assert signal.getsignal(number) is before
