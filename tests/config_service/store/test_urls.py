"""Which store a URL leads to."""

from __future__ import annotations

import pytest

from config_service.domain.errors import StoreError
from config_service.store.journal.files import FilesJournal
from config_service.store.journal.mongo import MongoJournal
from config_service.store.journal.store import JournalStore
from config_service.store.sql import SqlStore
from config_service.store.urls import FORMS, create_store


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
