"""Records as JSON: nothing that a record holds can be left out of a backup, and nothing foreign is taken for one."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta, timezone
from typing import Any, get_args, get_type_hints

import pytest

from config_service.backup.codec import KINDS, RecordError, decode_record, encode_record
from config_service.domain.keys import ConfigKey
from config_service.domain.records import Draft, Record, StoredKey, StoredToken
from config_service.domain.scopes import ADMIN_SCOPES
from config_service.store.protocol import ConfigStore

NOON = datetime(2026, 2, 3, 12, 0, 0, 123456, tzinfo=timezone.utc)
DRAFT = Draft(ConfigKey("orders", "prod", "release/1"), 3, bytes(range(256)), 7, NOON)
TOKEN = StoredToken(
    id=1,
    name="naïve \u2028 name",
    secret_hash=b"h" * 32,
    keys=(StoredKey(b"newest"), StoredKey(b"older", NOON + timedelta(days=1))),
    default_environment="default",
    scopes=ADMIN_SCOPES,
    created_by=0,
    created_at=NOON,
)


def test_every_kind_of_record_has_a_name() -> None:
    """What a store can be restored from, and what can be written down, are the same."""
    assert set(KINDS.values()) == set(get_args(Record))


def test_no_kind_that_a_store_tells_is_left_out() -> None:
    """Whatever a method of ConfigStore returns or yields is a record, the description of one, or a plain value."""
    # A savepoint is what its log entry says; what is beside the log follows from tokens, savepoints and check value.
    described = {"VersionInfo", "SchemaInfo", "Position", "Head", "SealedValue", "Savepoint", "BesideLog"}
    told = set()
    for name, method in vars(ConfigStore).items():
        if not name.startswith("_") and callable(method):
            pending = [get_type_hints(method).get("return")]
            while pending:
                hint = pending.pop()
                pending += get_args(hint)
                if dataclasses.is_dataclass(hint):
                    told.add(getattr(hint, "__name__", ""))
    assert told - described <= {kind.__name__ for kind in KINDS.values()}


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_field_of_a_record_is_written(kind: type[Any]) -> None:
    """By the fields of the dataclass itself, so that one added later cannot be forgotten."""
    values: dict[str, Any] = {field.name: getattr(DRAFT, field.name, 5) for field in dataclasses.fields(kind)}
    (fields,) = encode_record(kind(**values)).values()
    assert isinstance(fields, dict)
    assert fields.keys() == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("record", [DRAFT, TOKEN])
def test_a_record_is_read_back(record: Record) -> None:
    """Through JSON text, nested values, every byte, microseconds and unusual characters included."""
    assert decode_record(json.loads(json.dumps(encode_record(record)))) == record


def test_a_field_with_a_default_may_be_missing() -> None:
    """As in a backup from before the field was there."""
    written = encode_record(TOKEN)
    fields: Any = written["token"]
    del fields["revoked_at"]
    assert decode_record(written) == TOKEN


@pytest.mark.parametrize(
    ("damaged", "told"),
    [
        ([], "one member"),
        ({}, "one member"),
        ({"draft": {}, "token": {}}, "one member"),
        ({"holiday": {}}, "newer version"),
        ({"draft": {}}, "draft that cannot be read"),
        ({"draft": []}, "draft that cannot be read"),
        ({"draft": {"canary": 1}}, "newer version"),
    ],
)
def test_what_is_no_record_is_refused(damaged: object, told: str) -> None:
    """With a sentence that says why, and shows nothing of it."""
    with pytest.raises(RecordError, match=told) as caught:
        decode_record(damaged)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base", "3"),
        ("base", True),
        ("base", None),
        ("document", "not base64"),
        ("document", 5),
        ("timestamp", "yesterday"),
        ("timestamp", 5),
        ("key", "orders"),
        ("key", {"label": "main"}),
    ],
)
def test_a_field_of_another_type_is_refused(field: str, value: object) -> None:
    """A number is no text, a truth value no number, and a time has one form."""
    written = encode_record(DRAFT)
    fields: Any = written["draft"]
    fields[field] = value
    with pytest.raises(RecordError):
        decode_record(written)


def test_a_type_without_a_form_is_an_error_of_the_program() -> None:
    """A field of a new type has to be taught to the codec: it is not written as something else."""
    with pytest.raises(TypeError, match="teach the codec"):
        encode_record(dataclasses.replace(DRAFT, base=1.5))  # type: ignore[arg-type]
