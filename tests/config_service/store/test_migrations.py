"""The schema's migrations: they make what ``schema`` declares, and go up and down with data in it."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from config_client.protocol import format_timestamp
from config_service.domain.errors import StoreCorruptError, StoreError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, LogEntry, StoredKey, StoredToken
from config_service.store import migrations
from config_service.store.schema import metadata
from config_service.store.sql import SqlStore
from config_service.store.sqlite import SqliteFile
from config_service.testing import (
    check_laws,
    new_archive,
    new_draft,
    new_keys,
    new_rotation,
    new_savepoint,
    new_schema,
    new_token,
    new_version,
)
from config_service.testing.store_contract.suite import linked

ORDERS = ConfigKey("orders")
NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "test_next"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("{table}") as changed:
        changed.add_column(sa.Column("note", sa.Text))
    op.execute("UPDATE {table} SET note = 'made before'")


def downgrade():
    with op.batch_alter_table("{table}") as changed:
        changed.drop_column("note")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def database(path: Path) -> SqliteFile:
    return SqliteFile.from_url(f"sqlite:///{path}")


def fill(path: Path, base: int = 0) -> int:
    """Put something into every table; return the revision after it."""

    async def scenario() -> int:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        await store.commit_version(new_version(base=base))
        await store.commit_version(new_version(base=base + 1, document=None))
        await store.commit_schema(new_schema(base=len(await store.schemas(ORDERS))))
        before = await store.draft(ORDERS)
        await store.replace_draft(ORDERS, before and before.document, new_draft(base=base + 2))
        await store.commit_keys(new_keys(await store.keys(), kind=None))
        await store.commit_token(new_token())
        entry = await store.commit_savepoint(new_savepoint(f"v{base + 1}", base + 1))
        await store.close()
        return entry.revision

    return asyncio.run(scenario())


def rows_of(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {
        table.name: [tuple(row) for row in connection.execute(table.select())] for table in metadata.tables.values()
    }


def spelled(connection: Connection) -> dict[str, list[str]]:
    """Return the definition of every table and index, as lines in no order. (A table that was copied is in quotes.)"""
    master = connection.execute(text("SELECT name, sql FROM sqlite_master"))
    # A table that was rebuilt has its name in quotes.
    return {
        name: sorted(line.strip(" ,\t").replace('"', "") for line in (sql or "").splitlines()) for name, sql in master
    }


def test_the_migrations_make_what_the_schema_declares(database: SqliteFile) -> None:
    """Tables, columns, keys and names of constraints, as Alembic compares them, and as the database spells them."""
    with database.migrating() as connection:
        migrations.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata})
        assert compare_metadata(context, metadata) == []
        migrated = spelled(connection)
        migrations.downgrade(connection, "base")
        metadata.create_all(connection)
        declared = spelled(connection)
    assert migrated == declared


def test_there_is_one_line_of_migrations(database: SqliteFile) -> None:
    """Every revision follows exactly one other, so that ``head`` means something."""
    with database.migrating() as connection:
        scripts = ScriptDirectory.from_config(migrations.configuration(connection))
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1
    assert migrations.revisions() == [one.revision for one in scripts.walk_revisions()][::-1]
    assert scripts.get_heads() == [migrations.revisions()[-1]]


def test_down_and_up_again_makes_an_empty_store(database: SqliteFile, path: Path) -> None:
    """Going down to the base takes every table away, and coming up makes them again."""
    fill(path)
    with database.migrating() as connection:
        assert migrations.is_current(connection)
        migrations.downgrade(connection, "base")
        assert inspect(connection).get_table_names() == [migrations.VERSION_TABLE]
        assert not migrations.is_current(connection)
        migrations.upgrade(connection)
        assert migrations.is_current(connection)
        assert not any(rows_of(connection).values())


def next_to_come(connection: Connection, directory: Path, table: str) -> Config:
    """Return the configuration with one more migration, which rebuilds ``table`` as SQLite makes it."""
    config = migrations.configuration(connection)
    scripts = ScriptDirectory.from_config(config)
    (directory / "next_to_come.py").write_text(NEXT.format(head=scripts.get_current_head(), table=table))
    config.set_main_option("version_locations", os.pathsep.join((scripts.versions, str(directory))))
    return config


@pytest.mark.parametrize("table", [table.name for table in metadata.sorted_tables])
def test_data_outlives_a_migration_up_and_down(table: str, database: SqliteFile, path: Path) -> None:
    """Rebuilding a table, also one that others refer to, loses no row in either direction."""
    fill(path)
    with database.migrating() as connection:
        before = rows_of(connection)
        command.upgrade(next_to_come(connection, path.parent, table), "head")
    with database.migrating() as connection:
        assert set(connection.execute(text(f"SELECT note FROM {table}")).scalars()) == {"made before"}
        assert rows_of(connection) == before
        with pytest.raises(StoreError, match="newer version of the service"):
            migrations.is_current(connection)
        command.downgrade(next_to_come(connection, path.parent, table), "-1")
    with database.migrating() as connection:
        assert migrations.is_current(connection)
        assert rows_of(connection) == before
    assert fill(path, base=2) == 10


def test_a_migration_that_fails_leaves_the_old_schema(database: SqliteFile, path: Path) -> None:
    """All of a migration happens or nothing of it, DDL included: the store opens again as it was."""
    fill(path)

    def upgrade_and_fail() -> None:
        with database.migrating() as connection:
            command.upgrade(next_to_come(connection, path.parent, "versions"), "head")
            connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with database.migrating() as connection:
        before = rows_of(connection)
    with pytest.raises(OperationalError, match="nowhere"):
        upgrade_and_fail()
    with database.migrating() as connection:
        assert migrations.is_current(connection)
        assert rows_of(connection) == before
        assert "note" not in {column["name"] for column in inspect(connection).get_columns("versions")}


def test_a_migration_that_would_break_a_reference_is_not_committed(database: SqliteFile, path: Path) -> None:
    """Rebuilding tables needs their references unchecked; they are checked before anything becomes durable."""
    fill(path)

    def lose_the_log() -> None:
        with database.migrating() as connection:
            connection.execute(text("DELETE FROM log"))

    with pytest.raises(StoreCorruptError):
        lose_the_log()
    with database.migrating() as connection:
        assert len(rows_of(connection)["log"]) == 5


def test_a_new_migration_begins_from_the_template(database: SqliteFile, path: Path) -> None:
    """What Alembic writes for the next migration is a module that goes both ways."""
    with database.migrating() as connection:
        config = migrations.configuration(connection)
        config.set_main_option("version_locations", str(path.parent))
        written = ScriptDirectory.from_config(config).generate_revision("0099", "notes", head="base")
    assert written is not None
    source = Path(written.path).read_text()
    module: dict[str, object] = {}
    exec(compile(source, written.path, "exec"), module)
    assert (module["__doc__"], module["revision"], module["down_revision"]) == ("notes.", "0099", None)
    assert callable(module["upgrade"])
    assert callable(module["downgrade"])


def told(path: Path) -> tuple[list[StoredToken], list[LogEntry]]:
    """Return what the store tells of its tokens and of its log, its laws checked."""

    async def scenario() -> tuple[list[StoredToken], list[LogEntry]]:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            await check_laws(store)
            return await store.tokens(), await store.log(0, 100)
        finally:
            await store.close()

    return asyncio.run(scenario())


def keys_of(connection: Connection) -> list[object]:
    """Return what the column ``keys`` of every token spells."""
    return [json.loads(keys) for keys in connection.execute(text("SELECT keys FROM tokens ORDER BY id")).scalars()]


def test_keys_of_the_first_schema_never_retire_until_they_are_rotated(database: SqliteFile, path: Path) -> None:
    """0002 keeps every key that 0001 kept, in its order; the store works on with them."""
    with database.migrating() as connection:
        migrations.upgrade(connection, "0001")
        connection.execute(text("INSERT INTO history VALUES (1, '0123456789ab0123456789ab', 3, 3, NULL)"))
        for number, keys in enumerate((["00ff", "ab"], [], ["cd"]), start=1):
            connection.execute(
                text("INSERT INTO tokens VALUES (:id, 'old', x'01', :keys, 'default', '[]', 0, :at, NULL, NULL)"),
                {"id": number, "keys": json.dumps(keys), "at": format_timestamp(NOON)},
            )
            connection.execute(
                text("INSERT INTO log VALUES (:id, 'token_created', 0, :at, NULL, NULL, NULL, NULL, :id)"),
                {"id": number, "at": format_timestamp(NOON)},
            )
        assert not migrations.is_current(connection)
    tokens, log = told(path)
    assert [token.keys for token in tokens] == [
        (StoredKey(b"\x00\xff"), StoredKey(b"\xab")),
        (),
        (StoredKey(b"\xcd"),),
    ]
    assert [entry.kind for entry in log] == [ChangeKind.TOKEN_CREATED] * 3


def rotate_twice(path: Path) -> None:
    """Create two tokens, and rotate the key of the first one twice: a key that retires, and one that has."""

    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        first, _ = await store.commit_token(new_token("first"))
        await store.commit_token(new_token("second"))
        for key in (b"second key", b"third key"):
            made = await store.rotate_token_keys(new_rotation(first, key))
            assert made is not None
            first = made[0]
        await store.close()

    asyncio.run(scenario())


def test_down_to_the_first_schema_keeps_the_keys_that_never_retire(database: SqliteFile, path: Path) -> None:
    """An older service would never let a key end; and it reads the log, in which a rotation is a second creation."""
    rotate_twice(path)
    with database.migrating() as connection:
        migrations.downgrade(connection, "0001")
        assert keys_of(connection) == [[b"third key".hex()], [b"sealed key".hex()]]
        kinds = connection.execute(text("SELECT kind FROM log ORDER BY revision")).scalars()
        assert list(kinds) == ["token_created"] * 4


def test_down_and_up_again_keeps_tokens_and_their_log(database: SqliteFile, path: Path) -> None:
    """Every revision is told as before; only the keys that were to retire are gone."""
    rotate_twice(path)
    tokens, log = told(path)
    with database.migrating() as connection:
        migrations.downgrade(connection, "0001")
        migrations.upgrade(connection)
    tokens_again, log_again = told(path)
    assert log_again == log
    assert [token.keys for token in tokens_again] == [token.keys[:1] for token in tokens]
    assert [entry.kind for entry in log][2:] == [ChangeKind.TOKEN_REKEYED] * 2


def test_down_and_up_again_loses_drafts_and_schemas_and_no_revision(database: SqliteFile, path: Path) -> None:
    """0002 knows neither: it reads the entry of a schema as a change of nothing, and every other one as before."""
    fill(path)
    _, log = told(path)
    assert [entry.schema for entry in log] == [None, None, 1, None, None]
    with database.migrating() as connection:
        migrations.downgrade(connection, "0002")
        assert not {"drafts", "schemas"} & set(inspect(connection).get_table_names())
        entry = connection.execute(text("SELECT kind, name, version, token_id FROM log WHERE revision = 3")).one()
        assert tuple(entry) == ("published", None, None, None)
        migrations.upgrade(connection)
        assert migrations.is_current(connection)
    _, log_again = told(path)
    assert [log_again[place] for place in (0, 1, 3)] == [log[place] for place in (0, 1, 3)]
    assert (log_again[2].revision, log_again[2].key, log_again[2].schema) == (3, None, None)
    assert fill(path, base=2) == 10


def test_down_and_up_again_loses_the_keys_and_the_chain_and_no_revision(database: SqliteFile, path: Path) -> None:
    """0003 reads a change of keys as one of nothing, and every other entry as before; the chain begins anew."""
    fill(path)
    _, log = told(path)

    async def rotate(link: bool) -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        await store.commit_keys(new_keys(await store.keys()), linked if link else None)
        await store.close()

    asyncio.run(rotate(link=True))
    with database.migrating() as connection:
        migrations.downgrade(connection, "0003")
        assert "data_keys" not in inspect(connection).get_table_names()
        assert not {"audit", "link"} & {column["name"] for column in inspect(connection).get_columns("log")}
        assert connection.execute(text("SELECT kind FROM log WHERE revision = 5")).scalar() == "published"
        migrations.upgrade(connection)
        assert connection.execute(text("SELECT link FROM history")).scalar() is None
    _, log_again = told(path)
    assert log_again[:4] == log[:4]
    assert (log_again[4].revision, log_again[4].key, log_again[4].link) == (5, None, None)
    asyncio.run(rotate(link=False))


@pytest.mark.parametrize("table", ["versions", "drafts", "schemas", "tokens"])
def test_what_is_sealed_under_a_data_key_is_not_left_without_it(table: str, database: SqliteFile, path: Path) -> None:
    """Going down would drop the key that alone opens it: refused, and the store opens as before."""
    fill(path)
    column = {"schemas": "schema", "tokens": "keys"}.get(table, "document")
    value = {"tokens": json.dumps([{"sealed": "0200000001", "retires_at": None}])}.get(table, b"\2\0\0\0\1")
    with database.migrating() as connection:
        connection.execute(text(f"UPDATE {table} SET {column} = :value"), {"value": value})
        before = rows_of(connection)

    def go_down() -> None:
        with database.migrating() as connection:
            migrations.downgrade(connection, "0003")

    with pytest.raises(StoreError, match="sealed under data keys"):
        go_down()
    with database.migrating() as connection:
        assert migrations.is_current(connection)
        assert rows_of(connection) == before


def test_a_store_of_the_third_schema_has_neither_keys_nor_a_chain(database: SqliteFile, path: Path) -> None:
    """0004 changes nothing that is there, references included."""
    fill(path)
    _, log = told(path)
    with database.migrating() as connection:
        migrations.downgrade(connection, "0003")
        migrations.upgrade(connection)
        rows = rows_of(connection)
    assert rows["data_keys"] == []
    assert told(path)[1][:4] == log[:4]


def test_a_store_of_the_second_schema_has_neither_drafts_nor_schemas(database: SqliteFile, path: Path) -> None:
    """0003 changes nothing that is there, and what is new begins empty."""
    with database.migrating() as connection:
        migrations.upgrade(connection, "0002")
        connection.execute(text("INSERT INTO history VALUES (1, '0123456789ab0123456789ab', 1, 0, NULL)"))
        values = {"at": format_timestamp(NOON)}
        row = "1, 'published', 7, :at, 'orders', 'default', 'main', 1, NULL"
        connection.execute(text(f"INSERT INTO log VALUES ({row})"), values)
        row = "'orders', 'default', 'main', 1, 1, 'published', 7, :at, NULL, x'01'"
        connection.execute(text(f"INSERT INTO versions VALUES ({row})"), values)

    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            await check_laws(store)
            version = await store.version(ORDERS, 1)
            assert version is not None
            assert version.document == b"\x01"
            assert await store.draft(ORDERS) is None
            assert await store.schemas(ORDERS) == []
        finally:
            await store.close()

    asyncio.run(scenario())


def test_down_to_the_fourth_schema_goes_on_with_what_runs(database: SqliteFile, path: Path) -> None:
    """0004 serves the newest version: what never ran and stands behind what runs is lost, everything else is told."""
    later, billing = NOON + timedelta(hours=1), ConfigKey("billing")

    async def publish_for_later() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        await store.commit_version(new_version())
        await store.commit_version(new_version(base=1, document=b"2", valid_from=later))
        await store.activate_version(ORDERS, 2, later)
        await store.commit_version(new_version(base=2, document=b"3", valid_from=later))
        await store.commit_version(new_version(base=3, document=b"4"))
        await store.commit_version(new_version(base=4, document=b"5", valid_from=later))
        await store.cancel_schedule(ORDERS, 5, 7, NOON)
        await store.commit_version(new_version(base=5, document=b"6", valid_from=later))
        await store.commit_version(new_version(billing, valid_from=later))
        await store.close()

    asyncio.run(publish_for_later())
    told(path)
    with database.migrating() as connection:
        migrations.downgrade(connection, "0004")
        kept = connection.execute(text("SELECT name, version, revision, kind FROM versions ORDER BY revision")).all()
        assert [tuple(row) for row in kept] == [
            ("orders", n, r, "published") for n, r in ((1, 1), (2, 3), (3, 4), (4, 5))
        ]
        at = connection.execute(text("SELECT timestamp FROM versions WHERE version = 2")).scalar_one()
        assert at == format_timestamp(later)
        entries = connection.execute(text("SELECT revision, kind, name, version FROM log ORDER BY 1")).all()
        assert [(name, version) for _, _, name, version in entries] == [
            ("orders", 1),
            (None, None),
            ("orders", 2),
            ("orders", 3),
            ("orders", 4),
            *[(None, None)] * 4,
        ]
        assert {kind for _, kind, _, _ in entries} == {"published"}
        migrations.upgrade(connection)
        assert migrations.is_current(connection)

    async def go_on() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        try:
            await check_laws(store)
            running = await store.running_version(ORDERS)
            assert running is not None
            assert (running.version, running.document) == (4, b"4")
            assert await store.running_version(billing) is None
            assert (await store.commit_version(new_version(base=4, valid_from=later))).revision == 10
        finally:
            await store.close()

    asyncio.run(go_on())


def test_down_to_the_sixth_schema_loses_names_and_tells_what_went_as_deleted(database: SqliteFile, path: Path) -> None:
    """Every other version is as before; an archive and a savepoint are changes of nothing, and no revision is lost."""

    async def name_and_archive() -> None:
        store = SqlStore(f"sqlite:///{path}")
        await store.open()
        for base in range(3):
            await store.commit_version(new_version(base=base, document=b"%d" % base))
        await store.commit_savepoint(new_savepoint(version=2))
        assert await store.archive_versions(new_archive(1))
        await store.close()

    asyncio.run(name_and_archive())
    told(path)
    with database.migrating() as connection:
        migrations.downgrade(connection, "0006")
        assert "savepoints" not in inspect(connection).get_table_names()
        kept = connection.execute(text("SELECT document FROM versions ORDER BY version")).scalars().all()
        assert kept == [None, b"1", b"2"]
        entries = connection.execute(text("SELECT kind, name, version FROM log WHERE revision > 3")).all()
        assert [tuple(entry) for entry in entries] == [("published", None, None)] * 2
        migrations.upgrade(connection)
    _, log = told(path)
    assert [entry.revision for entry in log] == [1, 2, 3, 4, 5]
