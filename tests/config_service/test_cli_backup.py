"""``backup`` and ``restore`` as commands: what is refused, what is left behind, and that nothing secret is printed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.program import program

from .conftest import MASTER_KEY, LiveService

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service with one published config."""
    service = LiveService(f"sqlite:///{tmp_path_factory.mktemp('live')}/config.db").start()
    service.publish(b'{"password": "canary"}')
    yield service
    service.stop()


@pytest.fixture(scope="module")
def whole(live: LiveService, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A backup of that service."""
    path = tmp_path_factory.mktemp("whole") / "store.backup"
    assert run(live, "backup", str(path)).exit_code == 0
    return path.read_bytes()


def run(live: LiveService, *arguments: str, stdin: bytes = b"", **variables: str) -> Result:
    """Run a command as an operator of ``live`` on the machine of its store."""
    environment = {
        "CONFIG_SERVER_URL": live.url,
        "CONFIG_SERVER_TOKEN": live.admin.secret,
        "CONFIG_SERVER_MASTER_KEY": MASTER_KEY,
        "CONFIG_SERVER_STORE_URL": live.settings.store_url,
        **variables,
    }
    result = CliRunner().invoke(program, list(arguments), env=environment, input=stdin)
    assert "canary" not in result.output
    assert live.admin.secret not in result.output
    return result


def test_a_backup_is_a_file_for_its_owner_that_replaces_nothing(live: LiveService, tmp_path: Path) -> None:
    """Mode 0600 whatever the umask; what is there already stays, unless told otherwise; nothing partial is left."""
    path = tmp_path / "store.backup"
    before = os.umask(0)
    try:
        told = json.loads(run(live, "backup", str(path), "--json").stdout)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (told["file"], told["bytes"], told["revision"]) == (str(path), path.stat().st_size, 3)
    path.write_bytes(b"precious")
    refused = run(live, "backup", str(path))
    assert (refused.exit_code, path.read_bytes()) == (5, b"precious")
    assert run(live, "backup", str(path), "--overwrite").exit_code == 0
    assert path.read_bytes() != b"precious"
    assert [one.name for one in tmp_path.iterdir()] == ["store.backup"]


def test_a_backup_through_a_pipe_is_the_backup(live: LiveService, tmp_path: Path) -> None:
    """``backup -`` writes it to stdout and nothing else; ``restore -`` reads it from there."""
    piped = run(live, "backup", "-", "--json")
    assert "revision 3" in piped.stderr
    checked = run(live, "restore", "-", "--dry-run", "--json", stdin=piped.stdout_bytes)
    assert json.loads(checked.stdout)["revision"] == 3


def test_a_backup_that_fails_leaves_nothing_behind(live: LiveService, tmp_path: Path) -> None:
    """Without the right, the service, or the directory; each with its exit code."""
    path = str(tmp_path / "store.backup")
    assert run(live, "backup", path, CONFIG_SERVER_TOKEN=live.reader.secret).exit_code == 3
    assert run(live, "backup", path, CONFIG_SERVER_URL="http://127.0.0.1:1").exit_code == 7
    assert run(live, "backup", str(tmp_path / "missing" / "store.backup")).exit_code == 2
    in_use = run(live, "backup", path, "--store-url", live.settings.store_url)
    assert (in_use.exit_code, "in use" in in_use.stderr) == (8, True)
    empty = run(live, "backup", path, "--store-url", f"sqlite:///{tmp_path}/new.db")
    assert (empty.exit_code, "there is no store" in empty.stderr) == (4, True)
    assert not (tmp_path / "store.backup").exists()
    assert not [one for one in tmp_path.iterdir() if "partial" in one.name]


def damaged(whole: bytes) -> list[bytes]:
    """Return files that are no backup any more."""
    half = whole[: len(whole) // 2]
    return [b"", b"x\n", b"{}\n", whole[:-1], half, half[: half.rindex(b"\n") + 1], whole.replace(b"admin", b"adm1n")]


@pytest.mark.parametrize("number", range(7))
def test_a_damaged_backup_is_refused_and_restores_nothing(
    live: LiveService, whole: bytes, tmp_path: Path, number: int
) -> None:
    """The new store stays empty: the same store then takes the undamaged one."""
    path = tmp_path / "store.backup"
    path.write_bytes(damaged(whole)[number])
    new = ("--store-url", f"sqlite:///{tmp_path}/new.db")
    for options in (new, ("--dry-run",)):
        refused = run(live, "restore", str(path), *options)
        assert refused.exit_code == 6, refused.stderr
    path.write_bytes(whole)
    restored = run(live, "restore", str(path), *new, "--json")
    assert json.loads(restored.stdout)["restored_revision"] == 4


def test_a_backup_is_restored_under_its_own_master_key_alone(live: LiveService, whole: bytes, tmp_path: Path) -> None:
    """Another one is refused before anything is written; so is a missing one. It may be one that was rotated out."""
    path = tmp_path / "store.backup"
    path.write_bytes(whole)
    new = ("--store-url", f"sqlite:///{tmp_path}/new.db")
    for key in ("ab" * 32, ""):
        refused = run(live, "restore", str(path), *new, CONFIG_SERVER_MASTER_KEY=key)
        assert (refused.exit_code, "CONFIG_SERVER_MASTER_KEY" in refused.stderr) == (8, True)
    previous = {"CONFIG_SERVER_MASTER_KEY": "ab" * 32, "CONFIG_SERVER_PREVIOUS_MASTER_KEYS": MASTER_KEY}
    assert run(live, "restore", str(path), *new, **previous).exit_code == 0


def test_a_store_that_is_not_new_is_left_alone(live: LiveService, whole: bytes, tmp_path: Path) -> None:
    """One in use, and one that was restored before."""
    path = tmp_path / "store.backup"
    path.write_bytes(whole)
    assert run(live, "restore", str(path)).exit_code == 8
    new = ("--store-url", f"sqlite:///{tmp_path}/new.db")
    assert run(live, "restore", str(path), *new).exit_code == 0
    again = run(live, "restore", str(path), *new)
    assert (again.exit_code, "not empty" in again.stderr) == (5, True)


def test_a_restore_begins_later_than_an_epoch_it_is_told(live: LiveService, whole: bytes, tmp_path: Path) -> None:
    """For a clock that is behind; what is no epoch is refused."""
    path = tmp_path / "store.backup"
    path.write_bytes(whole)
    ahead = "ff" * 5 + "00" + "ab" * 6
    new = ("--store-url", f"sqlite:///{tmp_path}/new.db", "--json")
    assert run(live, "restore", str(path), *new, "--after", "tomorrow").exit_code == 6
    restored: dict[str, Any] = json.loads(run(live, "restore", str(path), *new, "--after", ahead).stdout)
    assert restored["restored_epoch"] > ahead
    assert restored["epoch"] == live.app.operations.position.epoch


def test_a_restored_store_serves_what_the_first_one_did(live: LiveService, whole: bytes, tmp_path: Path) -> None:
    """Same documents, same tokens; its log ends with the restore. A backup of it is restored in turn."""
    path, new = tmp_path / "store.backup", f"sqlite:///{tmp_path}/new.db"
    path.write_bytes(whole)
    assert run(live, "restore", str(path), "--store-url", new).exit_code == 0
    second = tmp_path / "second.backup"
    told = json.loads(run(live, "backup", str(second), "--store-url", new, "--json").stdout)
    assert told["revision"] == 4
    assert b'"kind":"restored"' in second.read_bytes()
    third = f"sqlite:///{tmp_path}/third.db"
    assert run(live, "restore", str(second), "--store-url", third).exit_code == 0
    service = LiveService(third).start()
    try:
        environment = {"CONFIG_SERVER_URL": service.url, "CONFIG_SERVER_TOKEN": live.admin.secret}
        shown = CliRunner().invoke(program, ["show", "orders", "--format", "json"], env=environment)
        assert json.loads(shown.stdout) == {"password": "canary"}
    finally:
        service.stop()
