"""Stores of one process with real processes: killed in the middle of commits, out of room, locked by one another."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import config_service
from config_service.domain.errors import StoreLockedError
from config_service.domain.keys import ConfigKey
from config_service.store.urls import create_store
from config_service.testing import check_laws, new_version

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
ROOT = Path(config_service.__file__).parent.parent
ROUNDS = 10
KINDS = ("sqlite", "files")
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")


def url_of(kind: str, directory: Path) -> str:
    return f"sqlite:///{directory}/store.db" if kind == "sqlite" else f"file://{directory}/store"


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for a block; at its end it is killed, and no process is left."""
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_while_committing(url: str, seed: int) -> list[str]:
    """Return what was acknowledged before SIGKILL hit, 0 to 60 ms after the first acknowledgement."""
    with running(sys.executable, HERE / "commit_until_killed.py", url, seed) as process:
        output = process.stdout
        assert output is not None
        assert output.readline() == b"open\n"
        told = output.readline()
        end = time.monotonic() + random.Random(seed).uniform(0, 0.06)
        while (left := end - time.monotonic()) > 0:
            if select.select([output], [], [], left)[0]:
                told += os.read(output.fileno(), 65_536)
        process.kill()
        told += output.read()
    return [line.decode() for line in told.splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("mongodb", marks=pytest.mark.long)])
def test_what_was_acknowledged_outlives_sigkill(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Ten rounds on one store: every acknowledged commit is there, byte for byte, and the store is whole."""
    url = request.getfixturevalue("mongodb_url") if kind == "mongodb" else url_of(kind, tmp_path)
    acknowledged: dict[tuple[str, int], tuple[int, str]] = {}

    async def verify() -> None:
        store = create_store(url)
        await store.open()
        try:
            # What the killed process has sent to a server may be on its way still: it and this one want one place.
            settled = ConfigKey("settled")
            await store.commit_version(new_version(settled, len(await store.versions(settled))))
            await check_laws(store)
            for (name, number), expected in acknowledged.items():
                version = await store.version(ConfigKey(name), number)
                assert version is not None
                assert (version.revision, hashlib.sha256(version.document or b"").hexdigest()) == expected
        finally:
            await store.close()

    for seed in range(ROUNDS):
        for line in killed_while_committing(url, seed):
            name, number, revision, digest = line.split()
            acknowledged[name, int(number)] = (int(revision), digest)
        asyncio.run(verify())
        if kind == "sqlite":
            connection = sqlite3.connect(tmp_path / "store.db")
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()
        elif kind == "files":
            assert list((tmp_path / "store" / "growing").iterdir()) == []
    assert len(acknowledged) > ROUNDS


def expect_going_on(process: subprocess.Popen[bytes]) -> None:
    told, _ = process.communicate(timeout=100)
    lines = told.decode().splitlines()
    assert lines[0].startswith("failed StoreFullError"), lines
    assert lines[1:] == ["kept True", "went on True", "reopened True"]
    assert process.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_runs_out_of_room_goes_on_when_there_is_some(kind: str, tmp_path: Path) -> None:
    """With a real limit on the size of files: a typed error, nothing lost, nothing half done, and no need to reopen."""
    with running(sys.executable, HERE / "commit_until_full.py", url_of(kind, tmp_path)) as process:
        expect_going_on(process)


def _can_mount() -> bool:
    """Tell whether this machine lets us have a file system of our own."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_no_loss(kind: str, tmp_path: Path) -> None:
    """The same on a file system of a few hundred kilobytes, where not even a directory can grow."""
    if not _can_mount():
        pytest.skip("needs Linux, and unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1) or root")
    script = 'mount -t tmpfs -o size=600k tmpfs "$1" && shift && exec "$@"'
    program = (sys.executable, HERE / "commit_until_full.py", url_of(kind, tmp_path), tmp_path)
    with running(*OWN_MOUNTS, "sh", "-c", script, "sh", tmp_path, *program) as process:
        expect_going_on(process)


@pytest.mark.parametrize("kind", KINDS)
def test_the_lock_of_a_process_ends_with_it(kind: str, tmp_path: Path) -> None:
    """While another process has the store, opening it is refused with the way out; after its SIGKILL it opens."""
    url = url_of(kind, tmp_path)

    async def open_and_close() -> None:
        store = create_store(url)
        try:
            await store.open()
        finally:
            await store.close()

    with running(sys.executable, HERE / "commit_until_killed.py", url, 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreLockedError, match=r"stop the other one.*PostgreSQL"):
            asyncio.run(open_and_close())
    asyncio.run(open_and_close())
