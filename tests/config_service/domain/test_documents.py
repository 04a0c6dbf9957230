"""Which bytes may be published, and how a published document is rendered."""

from __future__ import annotations

import traceback
from datetime import datetime, timezone

import pytest

from config_client.types import Format
from config_service.domain.documents import Document, check_document, render_document
from config_service.domain.errors import DocumentTooLargeError, InvalidDocumentError, NotRenderableError, ServiceError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, Version

CANARY = "canary-7d20"
LIMIT = 200


def refusal(raw: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        check_document(raw, LIMIT)
    return caught.value


@pytest.mark.parametrize(
    "raw", [b"{}", b' {"a": [1, 2.50, null]}\n', '{"ключ": "värde"}'.encode(), b"{" + b" " * 198 + b"}"]
)
def test_a_json_object_may_be_published(raw: bytes) -> None:
    """White space, order and spelling are the publisher's."""
    check_document(raw, LIMIT)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"text"',
        b"1",
        b"null",
        b"{",
        b"{} {}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b"\xef\xbb\xbf{}",
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_anything_else_is_refused(raw: bytes) -> None:
    """Not an object, not strict JSON, or not UTF-8: InvalidDocumentError."""
    assert isinstance(refusal(raw), InvalidDocumentError)


@pytest.mark.parametrize("depth", [101, 100_000])
def test_a_document_that_is_nested_too_deep_is_refused(depth: int) -> None:
    """However deep: a typed error, and no RecursionError."""
    with pytest.raises(InvalidDocumentError):
        check_document(b'{"a":' + b"[" * depth + b"]" * depth + b"}", 10**6)


def test_a_document_over_the_limit_is_refused_by_its_size() -> None:
    """The message names size and limit."""
    error = refusal(b"{" + b" " * 199 + b"}")
    assert isinstance(error, DocumentTooLargeError)
    assert "201 bytes" in str(error)
    assert "200" in str(error)


def test_the_path_of_a_fault_is_told() -> None:
    """A duplicate key is found by the JSON Pointer of its object or of itself."""
    error = refusal(b'{"db": {"host": "a", "host": "b"}}')
    assert isinstance(error, InvalidDocumentError)
    assert error.path.startswith("/db")


@pytest.mark.parametrize(
    "raw",
    [
        f'{{"password": "{CANARY}"'.encode(),
        f'{{"password": "{CANARY}", "password": "{CANARY}"}}'.encode(),
        f'["{CANARY}"]'.encode(),
        f'{{"password": "{CANARY}\\xff"}}'.encode(),
        f'{{"password": "{CANARY}'.encode() + b'\xff"}',
    ],
)
def test_no_part_of_a_refused_document_is_in_the_error(raw: bytes) -> None:
    """Neither message nor chain holds a value; parsers' own errors carry the whole document."""
    error = refusal(raw)
    assert CANARY not in "".join(traceback.format_exception(error))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_json_is_rendered_as_published() -> None:
    """The bytes are the publisher's."""
    raw = b'{ "b": 1.10,\n "a": 1e3 }'
    assert render_document(raw, Format.JSON) == raw


def test_what_has_no_faithful_form_is_refused_by_its_path() -> None:
    """Two paths that collide as variables are NotRenderableError; the value is not in it."""
    raw = f'{{"a": {{"b": "{CANARY}"}}, "a_b": "x"}}'.encode()
    with pytest.raises(NotRenderableError) as caught:
        render_document(raw, Format.ENV)
    assert caught.value.path
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_the_repr_of_a_document_never_shows_its_content() -> None:
    """Documents travel through the whole service and may be logged anywhere."""
    version = Version(
        key=ConfigKey("orders"),
        version=3,
        revision=9,
        kind=ChangeKind.PUBLISHED,
        changed_by=1,
        timestamp=datetime(2026, 1, 1, tzinfo=timezone.utc),
        document=b"sealed",
    )
    document = Document.of(version, CANARY.encode())
    assert CANARY not in repr(document)
    assert "orders" in repr(document)
    assert not document.deleted
    assert Document.of(version, None).deleted
