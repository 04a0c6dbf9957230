"""What a config has to look like: JSON Schema 2020-12, compiled. Pure: no reference leads out of the schema.

Knows schemas and documents in the clear. Knows nothing of stores or HTTP. What it tells of a document are places and
keywords; the messages of the library repeat values and are never used.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

import jsonschema_rs

from config_client.formats import DocumentError, parse_json_object

from .differences import pointer
from .errors import InvalidSchemaError, Violation

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MAX_VIOLATIONS: Final = 1000
"""Violations that are told; a document of a mebibyte could have half a million."""

_BY_NAME: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
"""Keywords below which the next part of a path is a name and no keyword."""


class Schema:
    """A schema that documents can be held against. It has no repr of its own: what it allows may be secret."""

    __slots__ = ("_validator",)

    def __init__(self, raw: bytes) -> None:
        """Compile ``raw``.

        Raises InvalidSchemaError when it is not a JSON Schema 2020-12, names another dialect, or refers to a document
        elsewhere, which is never fetched.
        """
        schema = _parsed(raw)
        if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise InvalidSchemaError(f"the schema is of another dialect; this service knows {DIALECT}", "/$schema")
        fault: InvalidSchemaError
        try:
            jsonschema_rs.meta.validate(schema | {"$schema": DIALECT})
            self._validator = jsonschema_rs.Draft202012Validator(schema, offline=True)
        except jsonschema_rs.ValidationError as error:
            fault = _invalid(error)
        except Exception:
            fault = InvalidSchemaError("the schema cannot be compiled; is it JSON Schema 2020-12?")
        else:
            return
        # Raised outside of the handlers: the errors of the library hold the schema.
        raise fault

    def violations(self, document: bytes) -> tuple[Violation, ...]:
        """Return where the published ``document`` does not fit, at most ``MAX_VIOLATIONS`` places; empty when it fits.

        ``format`` is an annotation and is not checked (JSON Schema Validation 2020-12, 7.2.1).
        """
        found = self._validator.iter_errors(parse_json_object(document, strict=False))
        return tuple(Violation(pointer(one.instance_path), _keyword(one)) for one in islice(found, MAX_VIOLATIONS))


def _parsed(raw: bytes) -> dict[str, object]:
    try:
        return parse_json_object(raw, strict=True)
    except DocumentError as error:
        message, path = str(error), error.path
    raise InvalidSchemaError(f"the schema is not a strict JSON object: {message}", path)


def _invalid(error: jsonschema_rs.ValidationError) -> InvalidSchemaError:
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Referencing):
        return InvalidSchemaError(
            "a $ref of the schema does not lead to a place within it; documents elsewhere are never fetched: "
            "put what it refers to under $defs"
        )
    path = pointer(error.instance_path)
    return InvalidSchemaError(f"{path or 'the schema'} is not valid in JSON Schema 2020-12", path)


def _keyword(error: jsonschema_rs.ValidationError) -> str:
    """Return the keyword that failed; a place that a schema forbids altogether is told by what holds that schema."""
    path = error.schema_path
    names = [part for place, part in enumerate(path) if isinstance(part, str) and not _is_name(path, place)]
    return names[-1] if names else "false"


def _is_name(path: list[str | int], place: int) -> bool:
    """Tell whether the part of ``path`` at ``place`` is the name of a property or definition."""
    named = False
    for part in path[:place]:
        named = not named and part in _BY_NAME
    return named
