"""Schemas: which are taken, and what they tell of a document."""

from __future__ import annotations

import json
import socket
import traceback
from typing import Any

import pytest

from config_service.domain.errors import InvalidSchemaError, Violation
from config_service.domain.schemas import DIALECT, MAX_VIOLATIONS, Schema

CANARY = "canary-5e2a"


def violations(schema: Any, document: Any) -> list[tuple[str, str]]:
    found = Schema(json.dumps(schema).encode()).violations(json.dumps(document).encode())
    return sorted((one.path, one.keyword) for one in found)


@pytest.mark.parametrize(
    ("schema", "document", "expected"),
    [
        ({}, {"a": 1}, []),
        ({"$schema": DIALECT, "required": ["a", "b"]}, {}, [("", "required"), ("", "required")]),
        ({"properties": {"a": {"type": "string"}}}, {"a": 1}, [("/a", "type")]),
        ({"properties": {"a/b~": {"minimum": 5}}}, {"a/b~": 1}, [("/a~1b~0", "minimum")]),
        ({"properties": {"a": {"items": {"pattern": "^x"}}}}, {"a": ["x", "y"]}, [("/a/1", "pattern")]),
        ({"properties": {"type": False}}, {"type": 1}, [("/type", "properties")]),
        (
            {"$defs": {"type": {"minimum": 5}}, "properties": {"a": {"$ref": "#/$defs/type"}}},
            {"a": 1},
            [("/a", "minimum")],
        ),
        ({"additionalProperties": False}, {"a": 1}, [("", "additionalProperties")]),
        ({"unevaluatedProperties": False}, {"a": 1}, [("", "unevaluatedProperties")]),
        ({"properties": {"a": {"enum": [1]}, "b": {"const": 1}}}, {"a": 2, "b": 2}, [("/a", "enum"), ("/b", "const")]),
        ({"properties": {"a": {"prefixItems": [True], "items": False}}}, {"a": [1, 2]}, [("/a/1", "items")]),
        ({"properties": {"a": {"anyOf": [{"type": "string"}, {"minimum": 3}]}}}, {"a": 1}, [("/a", "anyOf")]),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, [("", "required")]),
        ({"properties": {"a": {"format": "email"}}}, {"a": "no address"}, []),
        ({"properties": {"a": {"multipleOf": 2}}}, {"a": 10**30 + 1}, [("/a", "multipleOf")]),
    ],
)
def test_every_violation_has_its_place_and_its_keyword(schema: Any, document: Any, expected: Any) -> None:
    """The keyword is that of the schema, also where a name is spelled like one."""
    assert violations(schema, document) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_refers_to_itself_in_a_circle_ends(schema: Any) -> None:
    """It says nothing, and takes neither for ever nor the process with it."""
    assert violations(schema, {"a": {"a": 1}}) == []


@pytest.mark.parametrize("place", ["https://example.invalid/s.json", "file:///etc/hostname", "s.json", "#/$defs/none"])
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_no_reference_leads_out_of_a_schema(keyword: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused when the schema is set, and nothing is looked up, opened or connected to."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    for schema in ({keyword: place}, {"$id": "https://example.invalid/base", "properties": {"a": {keyword: place}}}):
        with pytest.raises(InvalidSchemaError):
            Schema(json.dumps(schema).encode())


def test_a_reference_to_the_dialect_itself_needs_no_network() -> None:
    """The meta-schema is built in: a config may hold a schema."""
    assert violations({"properties": {"a": {"$ref": DIALECT}}}, {"a": {"type": 7}}) != []


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", ""),
        (b"true", ""),
        (b'{"a": 1, "a": 2}', "/a"),
        (f'{{"type": "{CANARY}"}}'.encode(), "/type"),
        (f'{{"properties": {{"a": {{"pattern": "({CANARY}"}}}}}}'.encode(), "/properties/a/pattern"),
        (f'{{"$schema": "https://{CANARY}.invalid/"}}'.encode(), "/$schema"),
        (b'{"$schema": ["canary-5e2a"]}', "/$schema"),
        (b'{"$schema": "http://json-schema.org/draft-07/schema#"}', "/$schema"),
        (f'{{"$ref": "https://{CANARY}.invalid/"}}'.encode(), ""),
    ],
)
def test_what_is_no_schema_is_refused_by_its_place(raw: bytes, path: str) -> None:
    """Neither the error nor its chain holds what stands there."""
    with pytest.raises(InvalidSchemaError) as caught:
        Schema(raw)
    assert caught.value.path == path
    assert CANARY not in "".join(traceback.format_exception(caught.value, chain=True)) + repr(vars(caught.value))
    assert caught.value.__context__ is None


def test_what_is_told_of_a_document_holds_none_of_its_values() -> None:
    """Not even where a schema repeats them."""
    schema = {"properties": {"a": {"enum": [CANARY, 1]}, "b": {"const": CANARY}, "c": {"maxLength": 2}}}
    found = Schema(json.dumps(schema).encode()).violations(json.dumps(dict.fromkeys("abc", f"{CANARY}!")).encode())
    assert len(found) == 3
    assert CANARY not in repr(found)
    assert str(Violation("", "required")) == "the document: required"


def test_the_list_of_violations_is_bounded() -> None:
    """A document of a mebibyte could have half a million."""
    schema = {"properties": {"a": {"items": {"type": "string"}}}}
    assert len(violations(schema, {"a": [1] * (MAX_VIOLATIONS + 500)})) == MAX_VIOLATIONS


def test_a_pattern_that_explodes_is_given_up() -> None:
    """What is not known to fit does not fit."""
    schema = {"properties": {"a": {"pattern": "^(a|a)*(?=b)$"}}}
    assert violations(schema, {"a": "a" * 60 + "c"}) == [("/a", "pattern")]
