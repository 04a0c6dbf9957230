"""The file of an SQLite store: which URLs name one, who may read it, who may use it, and what is refused as one."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event

from config_service.domain.errors import StoreCorruptError, StoreError, StoreLockedError
from config_service.domain.keys import ConfigKey
from config_service.store.lock import FileLock
from config_service.store.sql import SqlStore
from config_service.store.sqlite import SqliteFile
from config_service.testing import check_laws, new_token, new_version


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def opening(path: Path) -> None:
    """Open and close the store in ``path``."""

    async def scenario() -> None:
        store = SqlStore(url_of(path))
        try:
            await store.open()
        finally:
            await store.close()

    asyncio.run(scenario())


def filled(path: Path, configs: int = 40) -> Path:
    """Return ``path`` with a store in it that has something on every kind of page."""

    async def scenario() -> None:
        store = SqlStore(url_of(path))
        await store.open()
        await store.commit_token(new_token())
        for number in range(configs):
            await store.commit_version(new_version(ConfigKey(f"config-{number}"), document=bytes([number]) * 9_000))
        await store.close()

    asyncio.run(scenario())
    return path


def content(path: Path) -> dict[str, bytes]:
    """Return what is in the database's files, the lock apart."""
    return {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*") if file.suffix != ".lock"}


# --- URLs ---


@pytest.mark.parametrize(
    "url",
    [
        "",
        "store.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:store.db?mode=memory&uri=true",
        "sqlite:///file::memory:",
        "sqlite:///store.db?timeout=5",
        "sqlite:///store\0.db",
        "sqlite+aiosqlite:///store.db",
        "sqlite://user:hunter2@host/store.db",
    ],
)
def test_a_url_that_names_no_file_is_refused_with_those_that_do(url: str) -> None:
    """The error says which URLs work, and does not repeat the one given: it may hold a password."""
    with pytest.raises(StoreError, match=r"sqlite:///relative/path\.db or sqlite:////absolute/path\.db") as refusal:
        SqlStore(url)
    assert "hunter2" not in str(refusal.value)


def test_a_relative_url_counts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are followed by a relative path."""
    monkeypatch.chdir(tmp_path)

    async def scenario() -> None:
        store = SqlStore("sqlite:///some/place/store.db")
        await store.open()
        await store.close()

    asyncio.run(scenario())
    assert (tmp_path / "some/place/store.db").is_file()


# --- the files ---


def test_only_the_owner_may_read_the_store(tmp_path: Path) -> None:
    """Directories that had to be made are 0700, the database and every file beside it 0600, whatever the umask."""
    path = tmp_path / "new" / "place" / "store.db"

    async def scenario() -> set[str]:
        store = SqlStore(url_of(path))
        await store.open()
        await store.commit_version(new_version())
        files = list(path.parent.iterdir())
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        await store.close()
        return {file.name for file in files}

    umask = os.umask(0)
    try:
        names = asyncio.run(scenario())
    finally:
        os.umask(umask)
    assert names == {"store.db", "store.db-wal", "store.db-shm", "store.db.lock"}
    assert {stat.S_IMODE(place.stat().st_mode) for place in (path.parent, path.parent.parent)} == {0o700}


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """A file made beforehand, for its owner's sake, is used; its mode is the operator's choice."""
    path = tmp_path / "store.db"
    path.touch(0o640)
    opening(path)
    assert path.stat().st_size > 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_every_connection_is_durable(tmp_path: Path) -> None:
    """Write-ahead log, ``synchronous = FULL`` (2) and foreign keys hold where is written and where is read."""
    seen: list[tuple[object, ...]] = []
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "fullfsync")

    def look(connection: Connection) -> None:
        seen.append(tuple(connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() for pragma in pragmas))

    async def scenario() -> None:
        store = SqlStore(url_of(tmp_path / "store.db"))
        await store.open()
        await store.commit_version(new_version())
        await store.close()

    event.listen(Engine, "commit", look)
    try:
        asyncio.run(scenario())
    finally:
        event.remove(Engine, "commit", look)
    database = SqliteFile.from_url(url_of(tmp_path / "store.db"))
    engine = database.reading_engine(1)
    with engine.connect() as connection:
        look(connection)
    engine.dispose()
    assert seen[0] == ("wal", 2, 0, 1), "while tables may be rebuilt, their references are checked at the end only"
    assert seen[1:] == [("wal", 2, 1, 1)] * 2


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path) -> None:
    """Where SQLite answers with another journal mode than asked for, the store says what to do."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(StoreError, match="local disk"):
        SqliteFile.from_url(url_of(tmp_path / "store.db")).prepare(connection)
    engine.dispose()


# --- what cannot be a store ---


def _make_directory(path: Path) -> None:
    path.mkdir()


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_parent_a_file(path: Path) -> None:
    path.parent.write_text("not a directory")


@pytest.mark.parametrize("obstacle", [_make_directory, _make_pipe, _make_parent_a_file])
def test_a_path_that_cannot_be_a_file_is_refused(obstacle: Callable[[Path], None], tmp_path: Path) -> None:
    """A directory, a pipe, a file in place of the directory: the error names the path and nothing hangs."""
    path = tmp_path / "place" / "store.db"
    if obstacle is not _make_parent_a_file:
        path.parent.mkdir()
    obstacle(path)
    for _ in range(2):
        with pytest.raises(StoreError, match="place"):
            opening(path)


def test_a_database_of_another_program_is_left_as_it_was(tmp_path: Path) -> None:
    """Other tables, with or without a history of migrations of their own, mean that the path is wrong."""
    for number, tables in enumerate((["theirs"], ["theirs", "alembic_version"], ["alembic_version"])):
        path = tmp_path / f"{number}.db"
        connection = sqlite3.connect(path)
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (version_num TEXT)")
        connection.close()
        before = content(path)
        with pytest.raises(StoreCorruptError, match="another program"):
            opening(path)
        assert content(path) == before


def test_a_store_of_a_newer_service_is_left_as_it_was(tmp_path: Path) -> None:
    """A schema that this code does not know is not touched; the error says to upgrade."""
    path = filled(tmp_path / "store.db", configs=1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = content(path)
    with pytest.raises(StoreError, match="newer version of the service; upgrade"):
        opening(path)
    assert content(path) == before


# --- damage ---


@pytest.mark.parametrize("length", [1, 15, 100, 5_000])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(length: int, tmp_path: Path) -> None:
    """Random bytes are not taken for an empty store, however few."""
    path = tmp_path / "store.db"
    path.write_bytes(random.Random(length).randbytes(length))
    before = content(path)
    with pytest.raises(StoreCorruptError, match=r"store\.db"):
        opening(path)
    assert content(path) == before


def test_a_damaged_header_is_found(tmp_path: Path) -> None:
    """The store is refused, again and again, and is not locked by having been refused."""
    path = filled(tmp_path / "store.db")
    damage(path, 0, random.Random(1).randbytes(100))
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match="backup"):
            opening(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98, 0.999])
def test_a_truncated_file_is_found(share: float, tmp_path: Path) -> None:
    """A copy that was cut short does not open as a shorter store."""
    path = filled(tmp_path / "store.db")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StoreCorruptError, match="backup"):
        opening(path)


def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    """Whichever table or index has its root overwritten, the store does not open."""
    path = filled(tmp_path / "store.db")
    connection = sqlite3.connect(path)
    roots = [row[0] for row in connection.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 1")]
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    sound = path.read_bytes()
    for root in roots:
        path.write_bytes(sound)
        damage(path, (root - 1) * page_size, random.Random(root).randbytes(page_size))
        with pytest.raises(StoreCorruptError):
            opening(path)


def test_a_flipped_bit_never_surfaces_as_a_foreign_error(tmp_path: Path) -> None:
    """Damage that SQLite cannot see (documents have seals of their own) is read or refused, and never crashes.

    One bit of a byte that says something, anywhere; and one in the first byte of every tree page, which says what kind
    of page it is: that is always refused, so that this test is known to hit what it aims at.
    """
    path = filled(tmp_path / "sound.db", configs=8)
    connection = sqlite3.connect(path)
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    # Pages that migrations have set free would say a kind that nobody reads.
    connection.execute("VACUUM")
    connection.close()
    sound = path.read_bytes()
    path = tmp_path / "store.db"
    chance = random.Random(7)

    async def refused(place: int, bit: int) -> bool:
        path.write_bytes(sound)
        damage(path, place, bytes([sound[place] ^ 1 << bit]))
        store = SqlStore(url_of(path))
        try:
            await store.open()
            await check_laws(store)
        except StoreError:
            return True
        except AssertionError:
            return False
        finally:
            await store.close()
        return False

    # SQLite's file format, section 1.6: the kinds of tree pages; the first page begins behind the header of the file.
    kinds = [100, *(place for place in range(page_size, len(sound), page_size) if sound[place] in {2, 5, 10, 13})]
    assert len(kinds) > 10
    assert all(asyncio.run(refused(place, 4)) for place in kinds)
    telling = [place for place, byte in enumerate(sound) if byte]
    for place in chance.sample(telling, 80):
        asyncio.run(refused(place, chance.randrange(8)))


def damage(path: Path, place: int, replacement: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(replacement)


# --- exclusive use ---


def test_a_second_store_on_the_same_file_is_refused(tmp_path: Path) -> None:
    """In the same process and by another name of the file too; the error names the file and the way out."""
    path = tmp_path / "store.db"
    alias = tmp_path / "alias.db"
    alias.symlink_to(path)

    async def scenario() -> None:
        first = SqlStore(url_of(path))
        await first.open()
        await first.open()
        for name in (path, alias):
            second = SqlStore(url_of(name))
            with pytest.raises(StoreLockedError, match=r"store\.db is in use .* SQLite serves one process"):
                await second.open()
            await second.close()
        await first.commit_version(new_version())
        await first.close()
        await second.open()
        assert (await second.position()).revision == 1
        await second.close()

    asyncio.run(scenario())


def test_a_file_of_two_names_is_refused(tmp_path: Path) -> None:
    """Each name has a lock and a write-ahead log of its own: two processes would not see each other's commits."""
    path = filled(tmp_path / "store.db", 1)
    os.link(path, tmp_path / "second.db")
    for name in ("store.db", "second.db"):
        with pytest.raises(StoreError, match=rf"{name} has a second name"):
            opening(tmp_path / name)
    (tmp_path / "second.db").unlink()
    opening(path)


@pytest.mark.parametrize("replaced", [True, False])
def test_nothing_is_acknowledged_into_a_file_that_was_taken_away(replaced: bool, tmp_path: Path) -> None:
    """Removed, or replaced by a copy, it is written to by nobody else, and gone with the process. Back in its place it
    takes changes again.
    """
    path = tmp_path / "store.db"

    async def scenario() -> None:
        store = SqlStore(url_of(path))
        await store.open()
        await store.commit_version(new_version())
        path.rename(tmp_path / "away.db")
        if replaced:
            path.write_bytes((tmp_path / "away.db").read_bytes())
        with pytest.raises(StoreError, match="was removed or replaced"):
            await store.commit_version(new_version(base=1))
        (tmp_path / "away.db").replace(path)
        assert (await store.commit_version(new_version(base=1))).revision == 2
        await check_laws(store)
        await store.close()

    asyncio.run(scenario())


def test_a_lock_is_taken_once_and_given_back(tmp_path: Path) -> None:
    """Releasing is allowed at any time; a lock that could not be taken holds nothing."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.release()
    assert first.acquire()
    assert not second.acquire()
    second.release()
    assert not second.acquire()
    first.release()
    first.release()
    assert second.acquire()
    second.release()


def test_opening_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    """Whoever opens the store next finds it free, and whole."""
    reached, go_on = threading.Event(), threading.Event()

    def wait(_connection: Connection) -> None:
        reached.set()
        assert go_on.wait(30)

    async def scenario() -> None:
        store = SqlStore(url_of(tmp_path / "store.db"))
        opening_task = asyncio.ensure_future(store.open())
        await asyncio.to_thread(reached.wait, 30)
        opening_task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening_task
        with pytest.raises(StoreError, match="not open"):
            await store.position()

    event.listen(Engine, "commit", wait)
    try:
        asyncio.run(scenario())
    finally:
        event.remove(Engine, "commit", wait)
    opening(tmp_path / "store.db")
