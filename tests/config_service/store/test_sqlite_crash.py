"""SQLite with real processes: killed in the middle of commits, out of room, and locked by one another."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import select
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
from config_service.store.sql import SqlStore
from config_service.testing import check_laws

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
ROOT = Path(config_service.__file__).parent.parent
ROUNDS = 10


@contextmanager
def running(program: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of this directory for a block; at its end it is killed, and no process is left."""
    process = subprocess.Popen(
        [sys.executable, HERE / program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_while_committing(path: Path, seed: int) -> list[str]:
    """Return what was acknowledged before SIGKILL hit, 0 to 60 ms after the first acknowledgement."""
    with running("commit_until_killed.py", path, seed) as process:
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


def test_what_was_acknowledged_outlives_sigkill(tmp_path: Path) -> None:
    """Ten rounds on one store: every acknowledged commit is there, byte for byte, and the store is whole.

    Of two configs that are always committed together, neither ever has a version more than the other.
    """
    path = tmp_path / "store.db"
    acknowledged: dict[tuple[str, int], tuple[int, str]] = {}

    async def verify() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            await check_laws(store)
            for (name, number), expected in acknowledged.items():
                version = await store.version(ConfigKey(name), number)
                assert version is not None
                assert (version.revision, hashlib.sha256(version.document or b"").hexdigest()) == expected
            pair = [await store.versions(ConfigKey(name)) for name in ("pair-0", "pair-1")]
            assert [one.revision + 1 for one in pair[0]] == [one.revision for one in pair[1]]
        finally:
            await store.close()

    for seed in range(ROUNDS):
        for line in killed_while_committing(path, seed):
            name, number, revision, digest = line.split()
            acknowledged[name, int(number)] = (int(revision), digest)
        asyncio.run(verify())
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    assert len(acknowledged) > ROUNDS


def test_a_store_that_runs_out_of_room_goes_on_when_there_is_some(tmp_path: Path) -> None:
    """With a real limit on the size of files: a typed error, nothing lost, nothing half done, and no need to reopen."""
    with running("commit_until_full.py", tmp_path / "store.db") as process:
        told, _ = process.communicate(timeout=50)
    lines = told.decode().splitlines()
    assert lines[0].startswith("failed StoreFullError")
    assert lines[1:] == ["kept True", "went on True", "reopened True"]
    assert process.returncode == 0


def test_the_lock_of_a_process_ends_with_it(tmp_path: Path) -> None:
    """While another process has the store, opening it is refused with the way out; after its SIGKILL it opens."""
    path = tmp_path / "store.db"

    async def open_and_close() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        await store.close()

    with running("commit_until_killed.py", path, 1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreLockedError, match="stop the other one"):
            asyncio.run(open_and_close())
    asyncio.run(open_and_close())
