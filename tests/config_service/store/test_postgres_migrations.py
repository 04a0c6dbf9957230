"""The migrations on PostgreSQL: they make what is declared, up and down with data, one process at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from config_service.domain.errors import StoreCorruptError, StoreError, StoreMissingError
from config_service.domain.keys import ConfigKey
from config_service.store import migrations
from config_service.store.postgres import PostgresDatabase
from config_service.store.postgres import metadata as own
from config_service.store.schema import metadata
from config_service.store.sql import SqlStore
from config_service.store.urls import create_store
from config_service.testing import check_laws, new_draft, new_rotation, new_schema, new_token, new_version

ORDERS = ConfigKey("orders")
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, collation_name, column_default
FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2
"""


@contextmanager
def migrating(url: str) -> Iterator[Connection]:
    with PostgresDatabase.from_url(url).migrating() as connection:
        yield connection


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(url)
    await store.open()
    try:
        yield store
        await check_laws(store)
    finally:
        await store.close()


def fill(url: str) -> None:
    """Put something into every table."""

    async def scenario() -> None:
        async with opened(url) as store:
            base = len(await store.versions(ORDERS))
            await store.commit_version(new_version(base=base))
            await store.commit_version(new_version(base=base + 1, document=None))
            await store.commit_schema(new_schema(base=len(await store.schemas(ORDERS))))
            before = await store.draft(ORDERS)
            await store.replace_draft(ORDERS, before and before.document, new_draft(base=base + 2))
            token, _ = await store.commit_token(new_token())
            assert await store.rotate_token_keys(new_rotation(token))

    asyncio.run(scenario())


def rows_of(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {table.name: sorted(map(tuple, connection.execute(table.select()))) for table in metadata.sorted_tables}


def spelled(connection: Connection) -> tuple[list[object], list[object]]:
    """Return every column and constraint but those of Alembic's own table."""
    return tuple(
        [tuple(row) for row in connection.execute(text(query)) if row[0] != migrations.VERSION_TABLE]
        for query in (COLUMNS, CONSTRAINTS)
    )


def test_the_migrations_make_what_is_declared(postgres_url: str) -> None:
    """Tables, columns, types, collations, keys and names of constraints, by Alembic and by the catalogue."""
    with migrating(postgres_url) as connection:
        migrations.upgrade(connection)
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, [metadata, own]) == []
        migrated = spelled(connection)
        migrations.downgrade(connection, "base")
        assert inspect(connection).get_table_names() == [migrations.VERSION_TABLE]
        metadata.create_all(connection)
        own.create_all(connection)
        declared = spelled(connection)
    assert migrated == declared
    columns, _ = migrated
    keys = [row for row in columns if row[1] in {"name", "environment", "label"} and row[0] not in {"log", "tokens"}]
    assert len(keys) >= 9
    assert {row[4] for row in keys} == {"C"}


def test_data_outlives_every_migration_down_and_up_that_keeps_it(postgres_url: str) -> None:
    """Down to where drafts and schemas began and up again: not a row is lost, and the store goes on."""
    fill(postgres_url)
    with migrating(postgres_url) as connection:
        before = rows_of(connection)
        migrations.downgrade(connection, "0003")
        migrations.upgrade(connection)
        assert migrations.is_current(connection)
        assert rows_of(connection) == before
    fill(postgres_url)


def test_down_to_the_first_schema_and_up_again_keeps_every_revision(postgres_url: str) -> None:
    """What the first schema cannot hold is gone; versions, tokens and the log are there, and the store goes on."""
    fill(postgres_url)
    with migrating(postgres_url) as connection:
        versions = rows_of(connection)["versions"]
        migrations.downgrade(connection, "0001")
        migrations.upgrade(connection)
        rows = rows_of(connection)
    assert rows["versions"] == versions
    assert [row[0] for row in rows["log"]] == [1, 2, 3, 4, 5]
    assert not rows["drafts"]
    assert not rows["schemas"]
    fill(postgres_url)


def test_a_migration_that_fails_changes_nothing(postgres_url: str) -> None:
    """All of it happens or nothing, tables included."""
    fill(postgres_url)

    def downgrade_and_fail() -> None:
        with migrating(postgres_url) as connection:
            migrations.downgrade(connection, "0001")
            raise RuntimeError

    with migrating(postgres_url) as connection:
        before = rows_of(connection)
    with pytest.raises(RuntimeError):
        downgrade_and_fail()
    with migrating(postgres_url) as connection:
        assert migrations.is_current(connection)
        assert rows_of(connection) == before


def test_a_schema_without_a_store_gets_none_where_one_was_to_be_opened(postgres_url: str) -> None:
    """No table is made; one that is older is not migrated; and what is current is opened."""

    async def open_as_it_is() -> None:
        store = create_store(postgres_url, create=False)
        try:
            await store.open()
        finally:
            await store.close()

    with pytest.raises(StoreMissingError, match="there is no store; nothing was made"):
        asyncio.run(open_as_it_is())
    with psycopg.connect(postgres_url) as connection:
        tables = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        assert connection.execute(tables).fetchone() == (0,)
    fill(postgres_url)
    asyncio.run(open_as_it_is())
    with migrating(postgres_url) as migration:
        migrations.downgrade(migration, "-1")
    with pytest.raises(StoreError, match="older version"):
        asyncio.run(open_as_it_is())
    with migrating(postgres_url) as migration:
        assert not migrations.is_current(migration)


def test_one_process_migrates_and_the_others_wait_for_it(postgres_url: str) -> None:
    """While one migrates, a replica that starts waits; then it finds everything done, and one history."""
    opened_store = threading.Event()

    def open_store() -> None:
        async def scenario() -> None:
            async with opened(postgres_url):
                opened_store.set()

        asyncio.run(scenario())

    replica = threading.Thread(target=open_store)
    with migrating(postgres_url) as connection:
        migrations.upgrade(connection, "0002")
        replica.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not connection.execute(waiting).scalar():
            assert replica.is_alive()
        assert not opened_store.is_set()
    replica.join(30)
    assert opened_store.is_set()


def test_a_store_that_a_newer_service_migrated_is_refused(postgres_url: str) -> None:
    """An older replica says what to do, and changes nothing."""
    fill(postgres_url)
    with migrating(postgres_url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
        before = rows_of(connection)
    with pytest.raises(StoreError, match="newer version of the service"):
        fill(postgres_url)
    with migrating(postgres_url) as connection:
        assert rows_of(connection) == before


def test_a_schema_with_tables_of_another_program_is_refused(postgres_url: str) -> None:
    """Nothing is put beside what is not ours."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE versions (id integer)")
    with pytest.raises(StoreCorruptError, match="another program"):
        fill(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()").fetchall()
    assert tables == [("versions",)]
