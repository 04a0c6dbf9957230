"""Records of a journal: what is spelled is read back, in JSON and in BSON; what does not follow is refused."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import datetime, timedelta, timezone
from pathlib import Path

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_service.domain.errors import StoreCorruptError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import (
    ChangeKind,
    KeyUse,
    LogEntry,
    SchemaInfo,
    StoredKey,
    StoredToken,
    VersionInfo,
    WrappedKey,
)
from config_service.domain.scopes import Right, Scope
from config_service.store.journal import directory
from config_service.store.journal.record import Change, Record, as_kept, read_record, record_fields
from config_service.store.journal.state import State

NOON = datetime(2026, 2, 3, 12, tzinfo=timezone.utc)
EPOCH = "0123456789ab0123456789ab"
ORDERS = ConfigKey("orders")

moments = st.builds(
    lambda microseconds, minutes: (NOON + timedelta(microseconds=microseconds)).astimezone(
        timezone(timedelta(minutes=minutes))
    ),
    st.integers(-(10**15), 10**17),
    st.integers(-720, 720),
)
numbers = st.integers(1, 2**53)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
keys = st.builds(ConfigKey, words, words, words)
sealed = st.binary(max_size=40)
globs = st.from_regex(r"[A-Za-z0-9._*?-]{1,12}", fullmatch=True)
tokens = st.builds(
    StoredToken,
    id=numbers,
    name=words,
    secret_hash=sealed,
    keys=st.lists(st.builds(StoredKey, sealed, st.none() | moments), max_size=3).map(tuple),
    default_environment=words,
    scopes=st.lists(st.builds(Scope, globs, globs, st.frozensets(st.sampled_from(Right), min_size=1)), max_size=2).map(
        tuple
    ),
    created_by=numbers,
    created_at=moments,
    expires_at=st.none() | moments,
    revoked_at=st.none() | moments,
)
wrapped = st.builds(WrappedKey, numbers, st.sampled_from(KeyUse), sealed, moments)


@st.composite
def changes(draw: st.DrawFn, revision: int) -> tuple[Change, bytes | None]:
    """Return a change, and the document that it has."""
    key, at, by = draw(keys), draw(moments), draw(numbers)
    kind = draw(st.sampled_from(ChangeKind))
    chained = {"audit": draw(st.none() | sealed), "link": draw(st.none() | sealed)}
    document = draw(st.none() | sealed)
    number = draw(numbers)
    match draw(st.sampled_from(["version", "schema", "token", "keys", "moved"])):
        case "version":
            entry = LogEntry(revision, kind, by, at, key=key, version=number, **chained)
            later, source = draw(st.none() | moments), draw(st.none() | numbers)
            made = VersionInfo(key, number, revision, kind, by, at, document is None, source, later)
            return Change(entry, made, draw(st.none() | sealed)), document
        case "schema":
            entry = LogEntry(revision, kind, by, at, key=key, schema=number, **chained)
            return Change(entry, SchemaInfo(key, number, revision, by, at, document is None)), document
        case "token":
            return Change(LogEntry(revision, kind, by, at, token_id=number, **chained)), None
        case "moved":
            return Change(LogEntry(revision, kind, by, at, key=key, version=number, **chained)), None
        case _:
            return Change(LogEntry(revision, kind, by, at, **chained)), None


@st.composite
def records(draw: st.DrawFn) -> Record:
    first = draw(numbers)
    made = [draw(changes(first + place)) for place in range(draw(st.integers(1, 3)))]
    return Record(
        EPOCH,
        tuple(change for change, _ in made),
        {change.entry.revision: document for change, document in made if document is not None},
        draw(st.lists(tokens, max_size=2).map(tuple)),
        draw(st.none() | st.lists(wrapped, max_size=2).map(tuple)),
        draw(st.none() | sealed),
    )


@given(record=records())
@settings(deadline=None, max_examples=40)
def test_a_record_is_read_back_from_json_and_from_bson(record: Record) -> None:
    """Whatever it tells, times as the same instants; and what is folded is what is read without the documents."""
    fields = record_fields(record)
    spelled = json.loads(json.dumps(fields, default=lambda value: b64encode(value).decode()))
    assert read_record(spelled, record.number) == record
    assert read_record(bson.decode(bson.encode(fields)), record.number) == record
    without = Record(record.epoch, record.changes, {}, record.tokens, record.keys, record.check)
    assert as_kept(record) == without
    assert (record.number, record.last) == (record.changes[0].entry.revision, record.changes[-1].entry.revision)


@given(record=records(), place=st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_a_file_that_was_changed_anywhere_is_refused(
    record: Record, place: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every byte counts, also those of the checksum and of white space; the error names the file."""
    path = tmp_path_factory.getbasetemp() / "record.json"
    data = directory.spell(record_fields(record))
    path.write_bytes(data)
    assert read_record(directory.read_fields(path), record.number) == record
    place %= len(data)
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(StoreCorruptError, match=r"record\.json"):
        directory.read_fields(path)


def published(revision: int, version: int = 1) -> Record:
    """Return the record that makes ``version`` of a config."""
    entry = LogEntry(revision, ChangeKind.PUBLISHED, 7, NOON, key=ORDERS, version=version)
    info = VersionInfo(ORDERS, version, revision, entry.kind, 7, NOON, deleted=False)
    return Record(EPOCH, (Change(entry, info),), {revision: b"sealed"})


def about(kind: ChangeKind, version: int | None = None, key: ConfigKey | None = ORDERS) -> Record:
    """Return a record 2 that says that something happened to a version."""
    return Record(EPOCH, (Change(LogEntry(2, kind, 7, NOON, key=key, version=version)),))


TOKEN = StoredToken(3, "app", b"", (), "default", (), 7, NOON)


@pytest.mark.parametrize(
    "record",
    [
        published(3),
        published(2, version=1),
        published(2, version=3),
        Record("f" * 24, published(2, version=2).changes),
        about(ChangeKind.ACTIVATED, 2),
        about(ChangeKind.ACTIVATED),
        about(ChangeKind.SCHEDULE_CANCELLED, 1, ConfigKey("unknown")),
        Record(EPOCH, (Change(LogEntry(2, ChangeKind.TOKEN_CREATED, 7, NOON, token_id=3)),), tokens=(TOKEN,)),
    ],
)
def test_a_record_that_does_not_follow_is_damage(record: Record) -> None:
    """A gap, a version or token out of turn, another epoch, what happened to nothing: each is found, by revision."""
    state = State(EPOCH)
    assert state.apply(published(1))
    with pytest.raises(StoreCorruptError, match=r"revision [23]"):
        state.apply(record)


def test_a_record_that_is_known_is_not_taken_twice() -> None:
    """Two readers may bring the same one."""
    state = State(EPOCH)
    assert state.apply(published(1))
    assert not state.apply(published(1))
    assert (state.revision, state.newest_version(ORDERS)) == (1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        {"epoch": 7},
        {"changes": []},
        {"changes": [{}]},
        {"changes": "text"},
        {"revision": 2},
        {"documents": {"1": 7}},
        {"documents": {"one": "AA=="}},
        {"documents": {"1": "not Base64"}},
        {"tokens": [7]},
        {"keys": [{"id": 1, "use": "unheard-of", "wrapped": "", "created_at": "2026-01-01T00:00:00+00:00"}]},
    ],
)
def test_a_record_that_is_not_spelled_right_is_damage(damage: dict[str, object]) -> None:
    """The error says which record, and tells none of its content."""
    fields = {**record_fields(published(1)), **damage}
    with pytest.raises(StoreCorruptError, match="the record of revision 1 cannot be read") as found:
        read_record(fields, 1)
    assert found.value.__context__ is None


def test_what_is_not_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    """However close it comes."""
    path = tmp_path / "record.json"
    for content in (b"", b"{}", b"[]", b'{\n  "a": 1,\n  "sha256": ""\n}\n', b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(StoreCorruptError, match="is torn, was edited, or is not a file of this service"):
            directory.read_fields(path)
