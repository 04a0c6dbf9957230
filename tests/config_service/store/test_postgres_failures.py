"""PostgreSQL that fails: connections that are cut, servers that restart, and errors that tell no secret."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from cutting import Cut, CuttingProxy, cutting_proxy
from postgres import OwnServer, PostgresServer, sessions
from sqlalchemy import text

from config_service.domain.errors import OutcomeUnknownError, StoreError, StoreLockedError
from config_service.store import postgres as under_test
from config_service.store.postgres import PostgresDatabase
from config_service.store.sql import SqlStore
from config_service.store.urls import create_store
from config_service.testing import check_laws, new_draft, new_token, new_version

SECRET = "canary-5f1c"


def run_on(url: str, scenario: Callable[[SqlStore], Coroutine[object, object, None]]) -> None:
    async def main() -> None:
        store = SqlStore(url)
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def end_sessions(url: str) -> int:
    """End every session of the service; return how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {sessions(url)}".encode())
        return len(ended.fetchall())


@pytest.fixture
def proxied(postgres: PostgresServer, postgres_url: str) -> Iterator[tuple[str, CuttingProxy]]:
    """The URL of an empty store that is reached through a proxy, and the proxy."""
    if not isinstance(postgres, OwnServer):
        pytest.skip("a server at a given URL may be anywhere; unset CONFIG_TEST_POSTGRES_URL to start one here")
    parts = urlsplit(postgres_url)
    options = parse_qs(parts.query)["options"][0].replace("=", "%3D")
    with cutting_proxy(str(Path(postgres.socket))) as proxy:
        yield f"postgresql://config@127.0.0.1:{proxy.port}/postgres?options={options}", proxy


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_store_whose_sessions_are_ended_goes_on(postgres_url: str) -> None:
    """Reads and commits after ``pg_terminate_backend`` succeed at once, round after round, and nothing is lost."""

    async def scenario(store: SqlStore) -> None:
        for base in range(0, 6, 2):
            await asyncio.gather(*(store.position() for _ in range(8)))
            await store.commit_version(new_version(base=base))
            assert end_sessions(postgres_url) >= 2
            assert len(await store.log(0, 100)) == base + 1
            assert end_sessions(postgres_url)
            assert (await store.commit_version(new_version(base=base + 1))).version == base + 2
        await check_laws(store)

    run_on(postgres_url, scenario)


def test_commits_while_sessions_are_ended_are_made_once_each(postgres_url: str) -> None:
    """Whatever moment a session ends at, an acknowledged commit is there, and none is there twice."""

    async def scenario(store: SqlStore) -> None:
        writing = asyncio.ensure_future(commit(store))
        while not writing.done():
            await asyncio.to_thread(end_sessions, postgres_url)
        acknowledged, failed = await writing
        log = [entry.version for entry in await store.log(0, 1000)]
        assert log == list(range(1, len(log) + 1))
        assert acknowledged <= set(log)
        assert len(log) <= len(acknowledged) + failed
        await check_laws(store)

    async def commit(store: SqlStore) -> tuple[set[int], int]:
        acknowledged: set[int] = set()
        failed = 0
        for _ in range(60):
            try:
                made = await store.commit_version(new_version(base=len(await store.versions(new_version().key))))
            except StoreError:
                failed += 1
            else:
                acknowledged.add(made.version)
        return acknowledged, failed

    run_on(postgres_url, scenario)


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
def test_a_commit_whose_answer_is_lost_is_made_once(proxied: tuple[str, CuttingProxy], cut: Cut) -> None:
    """Cut before the COMMIT arrives, it is done again; cut behind it, it is found: acknowledged once either way."""
    url, proxy = proxied

    async def scenario(store: SqlStore) -> None:
        await store.commit_version(new_version())
        for attempt, change in enumerate(
            (
                lambda: store.commit_version(new_version(base=1)),
                lambda: store.commit_token(new_token()),
                lambda: store.replace_draft(new_version().key, None, new_draft(base=2)),
            ),
            start=1,
        ):
            proxy.cut = cut
            await change()
            assert proxy.cuts == attempt
        assert [entry.revision for entry in await store.log(0, 10)] == [1, 2, 3]
        assert len(await store.tokens()) == 1
        assert await store.draft(new_version().key) is not None
        await check_laws(store)

    run_on(url, scenario)


def test_a_commit_that_nobody_can_tell_of_is_no_success(
    proxied: tuple[str, CuttingProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the server out of reach after the COMMIT there is an error of its own; later the truth is found."""
    url, proxy = proxied
    monkeypatch.setattr(under_test, "_PATIENCE", 0.3)

    async def scenario(store: SqlStore) -> None:
        await store.commit_version(new_version())
        proxy.cut, proxy.refuse = Cut.AFTER, True
        with pytest.raises(OutcomeUnknownError):
            await store.commit_version(new_version(base=1))
        with pytest.raises(StoreError):
            await store.commit_version(new_version(base=2))
        proxy.refuse = False
        assert [entry.version for entry in await store.log(0, 10)] == [1, 2]
        await store.commit_version(new_version(base=2))
        await check_laws(store)

    run_on(url, scenario)


def test_a_restarted_server_is_used_again(own_postgres: OwnServer) -> None:
    """While it is down there are typed errors; when it is back, stopped or killed, everything acknowledged is there."""

    async def scenario(store: SqlStore) -> None:
        for base, end in ((0, own_postgres.stop), (1, own_postgres.kill)):
            await store.commit_version(new_version(base=base))
            await asyncio.to_thread(end)
            with pytest.raises(StoreError):
                await store.log(0, 10)
            with pytest.raises(StoreError):
                await store.commit_version(new_version(base=base + 1))
            await asyncio.to_thread(own_postgres.start)
            assert len(await store.log(0, 10)) == base + 1
        await check_laws(store)

    run_on(own_postgres.schema(), scenario)


def test_a_writer_that_holds_the_lock_for_long_is_a_typed_error(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands still in the middle of a transaction holds nobody up for ever, and what waited goes on after."""
    settings = tuple("SET lock_timeout = '200ms'" if "lock_timeout" in one else one for one in under_test._SETTINGS)
    monkeypatch.setattr(under_test, "_SETTINGS", settings)

    async def scenario(store: SqlStore) -> None:
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT id FROM history FOR UPDATE")
            with pytest.raises(StoreLockedError, match="another writer"):
                await store.commit_version(new_version())
            assert (await store.position()).revision == 0
        await store.commit_version(new_version())

    run_on(postgres_url, scenario)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_sessions_do_not_take_over_what_weakens_them(postgres: PostgresServer, postgres_url: str) -> None:
    """The server's defaults here are a commit that does not wait and no time limits; ours are others."""
    url = f"{postgres_url}%20-cdefault_transaction_isolation%3Dserializable%20-csynchronous_commit%3Doff"
    asked = "synchronous_commit", "transaction_isolation", "idle_in_transaction_session_timeout", "client_encoding"
    with PostgresDatabase.from_url(url).connect() as connection:
        values = [connection.execute(f"SHOW {name}").fetchone() for name in asked]
    assert values == [("on",), ("read committed",), ("10s",), ("UTF8",)]


def test_more_than_durable_stays(postgres_url: str) -> None:
    """A standby that has to have applied every change is the administrator's choice."""
    url = f"{postgres_url}%20-csynchronous_commit%3Dremote_apply"
    with PostgresDatabase.from_url(url).connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("remote_apply",)


def test_a_server_that_does_not_sync_is_named_in_the_log(
    postgres_url: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A power cut could lose what was acknowledged: the operator has to hear of it."""
    if not isinstance(postgres, OwnServer):
        pytest.skip("a server at a given URL may sync; unset CONFIG_TEST_POSTGRES_URL to start one that does not")

    async def scenario(store: SqlStore) -> None:
        await store.position()

    run_on(postgres_url, scenario)
    assert "fsync is off" in caplog.text


# --- what errors say -------------------------------------------------------------------------------------------------


def opening(url: str) -> StoreError:
    async def scenario() -> None:
        store = create_store(url)
        try:
            await store.open()
        finally:
            await store.close()

    with pytest.raises(StoreError) as caught:
        asyncio.run(scenario())
    return caught.value


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"postgresql://config:{SECRET}@127.0.0.1:1/config", "check that the server runs"),
        (f"postgresql://config:{SECRET}@no-such-host.invalid/config", "check that the server runs"),
        (f"postgresql://config:{SECRET}@127.0.0.1:{SECRET}/config", "cannot be read"),
        (f"postgresql://config:a@{SECRET}@127.0.0.1/config", "percent-encoded"),
        (f"postgresql://config:{SECRET}/{SECRET}@127.0.0.1/config", "percent-encoded"),
        (f"postgresql://config:1/{SECRET}@127.0.0.1/config", "percent-encoded"),
        (f"postgresql://config:%{SECRET}@127.0.0.1/config", "cannot be read"),
        (f"postgresql://127.0.0.1/config?passwrod={SECRET}", "cannot be read"),
        (f"postgresql://127.0.0.1/config?sslmode={SECRET}", "cannot connect"),
        (f"mysql://root:{SECRET}@127.0.0.1/config", "sqlite:///.*postgresql://"),
        (SECRET, "sqlite:///.*postgresql://"),
    ],
)
def test_a_store_url_that_does_not_work_is_explained_and_not_repeated(url: str, remedy: str) -> None:
    """Neither the message nor the chain of causes has what was given as a password, wherever it stands."""
    error = opening(url)
    assert SECRET not in "".join(traceback.format_exception(error))
    with pytest.raises(type(error), match=f"(?s){remedy}"):
        raise error


def test_what_the_server_refuses_is_told_in_its_words(postgres_url: str) -> None:
    """No such database: the operator reads so, and no statement."""
    error = opening(postgres_url.replace("/postgres?", "/nowhere?"))
    assert 'database "nowhere" does not exist' in str(error)


def test_a_repr_shows_no_password() -> None:
    """Where the database is named, its password is not."""
    database = PostgresDatabase.from_url(f"postgresql://config:{SECRET}@db.example:6432/config")
    assert "db.example:6432" in repr(database)
    assert SECRET not in repr(database)


def test_an_error_of_a_statement_tells_none_of_it(postgres_url: str) -> None:
    """A statement and its values stay out of the error and of its causes."""

    async def scenario(store: SqlStore) -> None:
        await store.commit_token(new_token())
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE tokens ADD CONSTRAINT none_more CHECK (id < 2)")
        with pytest.raises(StoreError, match="PostgreSQL") as caught:
            await store.commit_token(new_token(SECRET))
        told = "".join(traceback.format_exception(caught.value))
        assert SECRET not in told
        assert "INSERT" not in told
        assert len(await store.tokens()) == 1
        await check_laws(store)

    run_on(postgres_url, scenario)


def test_an_error_without_a_code_is_a_store_error() -> None:
    """Whatever is raised inside becomes a StoreError that names the database and the kind of failure only."""
    database = PostgresDatabase.from_url("postgresql://db.example/config")
    for error in (psycopg.DataError(SECRET), psycopg.OperationalError(SECRET), ValueError(SECRET)):
        failure = database.failure(error)
        assert SECRET not in str(failure)
        assert "db.example" in str(failure)
        assert type(error).__name__ in str(failure)


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does without psycopg; who asks for PostgreSQL is told what to install."""
    monkeypatch.delitem(sys.modules, "config_service.store.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'python-config-client\[server,postgresql\]'"):
        create_store("postgresql://db.example/config")
    create_store("sqlite:///unused.db")


def test_a_database_with_another_encoding_is_refused(own_postgres: OwnServer) -> None:
    """It could not keep every name; nothing is created in it."""
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE narrow ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    error = opening(own_postgres.url.replace("/postgres?", "/narrow?"))
    assert "ENCODING 'UTF8'" in str(error)


def test_processes_that_are_long_gone_are_forgotten(postgres_url: str) -> None:
    """Each process leaves one row, which another one removes a day later."""

    async def commit(store: SqlStore) -> None:
        await store.seal_check(b"check")

    run_on(postgres_url, commit)
    database = PostgresDatabase.from_url(postgres_url)
    with database.migrating() as connection:
        connection.execute(text("UPDATE writers SET seen_at = '2026-01-01T00:00:00+00:00'"))
    run_on(postgres_url, commit)
    with database.migrating() as connection:
        assert connection.execute(text("SELECT count(*) FROM writers")).scalar() == 1
