"""Which store a URL leads to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from config_service.domain.errors import StoreCorruptError, StoreError, StoreMissingError
from config_service.store import migrations
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.mongo import MongoJournal
from config_service.store.journal.store import JournalStore
from config_service.store.sql import SqlStore
from config_service.store.sqlite import SqliteFile
from config_service.store.urls import FORMS, create_store
from config_service.testing import new_version


@pytest.mark.parametrize(
    "url",
    ["sqlite:///some.db", "postgresql://u:p@db.example/config", "postgres://db.example:6432/config?sslmode=require"],
)
def test_an_sql_database_is_chosen_by_its_scheme(url: str) -> None:
    """Nothing is opened before the store is."""
    assert isinstance(create_store(url), SqlStore)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("file:///var/lib/config", FilesJournal),
        ("file:relative/place", FilesJournal),
        ("mongodb://u:p@db.example/config", MongoJournal),
        ("mongodb+srv://u:p@db.example/config", MongoJournal),
    ],
)
def test_a_journal_is_chosen_by_its_scheme(url: str, kind: type[object]) -> None:
    """Plain files and MongoDB are one kind of store on two kinds of journals."""
    store = create_store(url)
    assert isinstance(store, JournalStore)
    assert store.shared is (kind is MongoJournal)


@pytest.mark.parametrize("url", ["", "config.db", "oracle://secret@db/x", "SQLITE:///x.db", "://", "postgresql"])
def test_any_other_url_is_refused_with_the_forms_there_are(url: str) -> None:
    """The message names every form, and nothing of what was given."""
    with pytest.raises(StoreError) as caught:
        create_store(url)
    assert all(form in str(caught.value) for form in FORMS)
    assert "secret" not in str(caught.value)


# Stores that are opened only as they are


def open_as_it_is(url: str) -> int:
    """Return the newest revision of the store of ``url``, which is neither made nor migrated."""

    async def scenario() -> int:
        store = create_store(url, create=False)
        try:
            await store.open()
            return (await store.position()).revision
        finally:
            await store.close()

    return asyncio.run(scenario())


def make(url: str) -> None:
    async def scenario() -> None:
        store = create_store(url)
        await store.open()
        await store.commit_version(new_version())
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("form", ["sqlite:///{}/below/store", "file://{}/below/store"])
def test_no_store_is_made_where_one_was_to_be_opened(form: str, tmp_path: Path) -> None:
    """Not even a directory; and a store that is there is opened."""
    with pytest.raises(StoreMissingError, match="there is no store; nothing was made"):
        open_as_it_is(form.format(tmp_path))
    assert list(tmp_path.iterdir()) == []
    make(form.format(tmp_path))
    assert open_as_it_is(form.format(tmp_path)) == 1


def test_what_stands_in_the_place_of_a_store_stays_as_it_is(tmp_path: Path) -> None:
    """An empty file, an empty database, an empty directory; and a directory of a store that has lost its name."""
    (tmp_path / "empty.db").touch()
    (tmp_path / "empty").mkdir()
    for url in (f"sqlite:///{tmp_path}/empty.db", f"file://{tmp_path}/empty"):
        with pytest.raises(StoreMissingError):
            open_as_it_is(url)
    assert {one.name for one in tmp_path.rglob("*")} == {"empty.db", "empty"}
    assert (tmp_path / "empty.db").read_bytes() == b""
    make(f"file://{tmp_path}/files")
    (tmp_path / "files" / "store.json").unlink()
    with pytest.raises(StoreCorruptError, match=r"store\.json is missing"):
        open_as_it_is(f"file://{tmp_path}/files")


def test_an_older_store_is_not_migrated_where_it_was_to_be_opened_as_it_is(tmp_path: Path) -> None:
    """The failure says how it would be; its schema is what it was, and a service migrates it as ever."""
    url = f"sqlite:///{tmp_path}/store.db"
    make(url)
    with SqliteFile.from_url(url).migrating() as connection:
        migrations.downgrade(connection, "-1")
    with pytest.raises(StoreError, match="older version") as caught:
        open_as_it_is(url)
    assert not isinstance(caught.value, StoreMissingError)
    with SqliteFile.from_url(url).migrating() as connection:
        assert not migrations.is_current(connection)
    make_again = create_store(url)
    asyncio.run(make_again.open())
    asyncio.run(make_again.close())
    assert open_as_it_is(url) == 1
