"""When SQLite fails: the error is typed, tells no secret, and the store is as it was and goes on."""

from __future__ import annotations

import asyncio
import errno
import logging
import sqlite3
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from config_service.domain.errors import (
    InvalidRequestError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
)
from config_service.domain.keys import ConfigKey
from config_service.domain.records import StoredKey
from config_service.domain.scopes import Scope
from config_service.store import rows
from config_service.store.sql import SqlStore
from config_service.store.sqlite import SqliteFile
from config_service.testing import check_laws, new_rotation, new_token, new_version

CANARY = "canary-7f3a9c"
SECRET_VERSION = new_version(document=CANARY.encode())
SECRET_TOKEN = replace(
    new_token(CANARY, keys=(StoredKey(CANARY.encode()),), scopes=(Scope.parse(f"{CANARY}@*:read"),)),
    secret_hash=CANARY.encode(),
)
SECRET_ROTATION = new_rotation(rows.committed_token(SECRET_TOKEN, 1), CANARY.encode())


def run_on(path: Path, scenario: Callable[[SqlStore], Coroutine[object, object, object]]) -> None:
    """Run ``scenario`` on an open store in ``path``, and check the laws after it."""

    async def run() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            await scenario(store)
            await check_laws(store)
        finally:
            await store.close()

    asyncio.run(run())


@contextmanager
def alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Give direct access to the database."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def all_that_is_told(error: BaseException) -> str:
    """Return every text that hangs on ``error``: its own, its causes', their attributes', the printed traceback."""
    told = ["".join(traceback.format_exception(error))]
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        link = queue.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            told += [repr(link), str(link), repr(link.args), repr(getattr(link, "__dict__", {}))]
            queue += [link.__cause__, link.__context__]
    return "\n".join(told)


@pytest.mark.parametrize(
    ("table", "commit"),
    [
        ("versions", lambda store: store.commit_version(SECRET_VERSION)),
        ("tokens", lambda store: store.commit_token(SECRET_TOKEN)),
        ("log", lambda store: store.commit_token(SECRET_TOKEN)),
    ],
)
def test_a_refused_statement_tells_nothing_of_what_it_would_have_kept(
    table: str,
    commit: Callable[[SqlStore], Coroutine[object, object, object]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No document, key, hash or name stands in the error, in what caused it, or in a log; nothing has changed."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "store.db"
    run_on(path, lambda store: asyncio.sleep(0))
    with alone(path) as connection:
        connection.execute(f"CREATE TRIGGER stop BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, '{CANARY}'); END")

    async def scenario(store: SqlStore) -> None:
        with pytest.raises(StoreError, match="SQLITE_CONSTRAINT") as failure:
            await commit(store)
        assert failure.value.__cause__ is None
        assert failure.value.__context__ is None
        assert CANARY not in all_that_is_told(failure.value)
        assert await store.log(0, 10) == []

    run_on(path, scenario)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("table", ["log", "tokens"])
def test_a_refused_rotation_changes_no_key_and_tells_none(
    table: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys, revision and log entry of a rotation are one transaction: when one is refused, nothing has happened."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "store.db"
    run_on(path, lambda store: store.commit_token(SECRET_TOKEN))
    change = {"log": "INSERT", "tokens": "UPDATE"}[table]
    with alone(path) as connection:
        connection.execute(f"CREATE TRIGGER stop BEFORE {change} ON {table} BEGIN SELECT RAISE(ABORT, '{CANARY}'); END")

    async def scenario(store: SqlStore) -> None:
        before = await store.tokens()
        with pytest.raises(StoreError, match="SQLITE_CONSTRAINT") as failure:
            await store.rotate_token_keys(SECRET_ROTATION)
        assert CANARY not in all_that_is_told(failure.value)
        assert await store.tokens() == before
        assert (await store.position()).revision == 1

    run_on(path, scenario)
    assert CANARY not in caplog.text + repr(SECRET_ROTATION)


def test_a_commit_that_fails_at_its_last_step_leaves_the_store_usable(tmp_path: Path) -> None:
    """When COMMIT itself fails nothing has happened, and the next commit is not blocked by a transaction left open."""
    failing = [True]

    def fail(_connection: Connection) -> None:
        if failing[0]:
            raise sqlite3.OperationalError(CANARY)

    async def scenario(store: SqlStore) -> None:
        event.listen(Engine, "commit", fail)
        try:
            for _ in range(3):
                with pytest.raises(StoreError) as failure:
                    await store.commit_version(SECRET_VERSION)
                assert CANARY not in all_that_is_told(failure.value)
            assert (await store.position()).revision == 0
            failing[0] = False
            assert (await store.commit_version(new_version())).revision == 1
        finally:
            event.remove(Engine, "commit", fail)

    run_on(tmp_path / "store.db", scenario)


def test_a_full_database_refuses_writes_and_serves_reads(tmp_path: Path) -> None:
    """No room is an error of its own. What was committed stays readable; with room again, writing goes on."""
    path = tmp_path / "store.db"

    def no_growth(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")

    async def fill(store: SqlStore) -> None:
        await store.commit_version(new_version())

    async def refuse(store: SqlStore) -> None:
        for _ in range(2):
            with pytest.raises(StoreFullError, match="free some space") as failure:
                await store.commit_version(new_version(ConfigKey("large"), document=CANARY.encode() * 50_000))
            assert CANARY not in all_that_is_told(failure.value)
        assert (await store.position()).revision == 1
        assert await store.versions(ConfigKey("large")) == []
        assert len(await store.versions(ConfigKey("orders"))) == 1

    async def go_on(store: SqlStore) -> None:
        assert (await store.commit_version(new_version(ConfigKey("large"), document=b"x" * 500_000))).revision == 2

    run_on(path, fill)
    event.listen(Engine, "connect", no_growth)
    try:
        run_on(path, refuse)
    finally:
        event.remove(Engine, "connect", no_growth)
    run_on(path, go_on)


def test_a_foreign_lock_is_reported_and_waited_out(tmp_path: Path) -> None:
    """While another program holds the file, commits are refused and reads served; once it lets go, all is well."""
    path = tmp_path / "store.db"

    async def scenario(store: SqlStore) -> None:
        await store.commit_version(new_version())
        with alone(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreLockedError, match="another program holds a lock"):
                await store.commit_version(new_version(base=1))
            assert (await store.position()).revision == 1
            connection.execute("ROLLBACK")
        await store.commit_version(new_version(base=1))

    run_on(path, scenario)


def test_a_new_store_that_a_foreign_lock_keeps_from_its_schema_can_be_opened_later(tmp_path: Path) -> None:
    """Opening fails with the same typed error, leaves nothing half made, and does not keep its own lock."""
    path = tmp_path / "store.db"
    path.touch()
    with alone(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLockedError):
            run_on(path, lambda store: asyncio.sleep(0))
        connection.execute("ROLLBACK")
    run_on(path, lambda store: asyncio.sleep(0))


def test_a_scope_without_a_spelling_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    """What could not be read back is not committed: one unreadable token would keep the service from starting."""

    async def scenario(store: SqlStore) -> None:
        with pytest.raises(InvalidRequestError):
            await store.commit_token(new_token(scopes=(Scope("*", "*", frozenset()),)))
        assert (await store.position()).revision == 0
        token, _ = await store.commit_token(new_token())
        assert token.id == 1

    run_on(tmp_path / "store.db", scenario)


def test_text_that_no_database_keeps_is_a_typed_error(tmp_path: Path) -> None:
    """A lone surrogate has no UTF-8 form; the error is ours, without the text."""

    async def scenario(store: SqlStore) -> None:
        with pytest.raises(StoreError, match="UnicodeEncodeError") as failure:
            await store.commit_token(replace(SECRET_TOKEN, name=f"{CANARY} \ud800"))
        assert CANARY not in all_that_is_told(failure.value)

    run_on(tmp_path / "store.db", scenario)


@pytest.mark.parametrize(
    ("damage", "read"),
    [
        ("UPDATE versions SET kind = 'unheard-of'", lambda store: store.versions(ConfigKey("orders"))),
        ("UPDATE versions SET timestamp = 'noon'", lambda store: store.version(ConfigKey("orders"), 1)),
        ("UPDATE versions SET document = 'text'", lambda store: anext(store.newest_versions())),
        ("UPDATE log SET kind = ''", lambda store: store.log(0, 10)),
        ("UPDATE log SET timestamp = x'00'", lambda store: store.log(0, 10)),
        ("UPDATE tokens SET keys = '[\"zz\"]'", lambda store: store.tokens()),
        ("UPDATE tokens SET keys = '['", lambda store: store.tokens()),
        ('UPDATE tokens SET keys = \'[{"sealed": "zz", "retires_at": null}]\'', lambda store: store.token(1)),
        ('UPDATE tokens SET keys = \'[{"sealed": "00"}]\'', lambda store: store.token(1)),
        ('UPDATE tokens SET keys = \'[{"sealed": "00", "retires_at": "noon"}]\'', lambda store: store.token(1)),
        ('UPDATE tokens SET keys = \'{"sealed": "00"}\'', lambda store: store.tokens()),
        ("UPDATE tokens SET keys = '[]]'", lambda store: store.rotate_token_keys(SECRET_ROTATION)),
        ("UPDATE tokens SET scopes = '[\"everything\"]'", lambda store: store.tokens()),
        ("UPDATE tokens SET scopes = '7'", lambda store: store.tokens()),
        ("UPDATE tokens SET created_at = '0000-99-99'", lambda store: store.tokens()),
    ],
)
def test_a_row_that_cannot_be_read_is_damage(
    damage: str, read: Callable[[SqlStore], Coroutine[object, object, object]], tmp_path: Path
) -> None:
    """Whatever field is not what it must be, the error says which row, tells none of its content, and is typed."""
    path = tmp_path / "store.db"

    async def fill(store: SqlStore) -> None:
        await store.commit_version(SECRET_VERSION)
        await store.commit_token(SECRET_TOKEN)

    async def find() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            with pytest.raises(
                StoreCorruptError, match=r"revision [12] cannot be read|token 1 cannot be read"
            ) as failure:
                await read(store)
            assert CANARY not in all_that_is_told(failure.value)
        finally:
            await store.close()

    run_on(path, fill)
    with alone(path) as connection:
        connection.execute(damage)
    asyncio.run(find())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreFullError),
        (sqlite3.SQLITE_IOERR_WRITE, StoreFullError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreLockedError),
        (sqlite3.SQLITE_LOCKED, StoreLockedError),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorruptError),
        (sqlite3.SQLITE_NOTADB, StoreCorruptError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, StoreError),
        (sqlite3.SQLITE_CANTOPEN, StoreError),
        (sqlite3.SQLITE_PERM, StoreError),
        (sqlite3.SQLITE_IOERR_READ, StoreError),
    ],
)
def test_every_kind_of_failure_has_its_error(code: int, kind: type[StoreError], tmp_path: Path) -> None:
    """SQLite's codes, the extended ones too, become the error that an operator can act on; the text is ours."""
    error = sqlite3.OperationalError(CANARY)
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_SOMETHING"
    failure = SqliteFile.from_url(f"sqlite:///{tmp_path}/store.db").failure(error)
    assert type(failure) is kind
    assert str(failure).startswith(f"{tmp_path}/store.db: ")
    assert str(failure).endswith(" (SQLITE_SOMETHING)")
    assert CANARY not in str(failure)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.ENOSPC, CANARY), StoreFullError, "No space left"),
        (OSError(errno.EDQUOT, CANARY), StoreFullError, "quota"),
        (PermissionError(errno.EACCES, CANARY), StoreError, "Permission denied"),
        (sqlite3.ProgrammingError(CANARY), StoreError, "ProgrammingError"),
        (ValueError(CANARY), StoreError, "ValueError"),
    ],
)
def test_failures_outside_sqlite_are_typed_too(
    error: Exception, kind: type[StoreError], text: str, tmp_path: Path
) -> None:
    """The operating system's errors keep their meaning, the unforeseen only its type."""
    failure = SqliteFile.from_url(f"sqlite:///{tmp_path}/store.db").failure(error)
    assert type(failure) is kind
    assert text in str(failure)
    assert CANARY not in str(failure)
