"""Changing a document by a patch: JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902). Pure.

Knows bytes that come in and documents in the clear. Knows nothing of drafts, stores or HTTP. What it raises names
operations by number and never repeats a value: the errors of the library hold the whole patch.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import jsonpatch  # its types are Any throughout: JSON is any value

from config_client.formats import DocumentError, parse_json_object

from .documents import check_document
from .errors import DocumentTooLargeError, InvalidDocumentError, InvalidPatchError, PatchConflictError
from .json_values import serialise

_OPERATIONS: Final = frozenset({"add", "remove", "replace", "move", "copy", "test"})
_DEEP: Final = "the patched document is nested too deeply; flatten it"


class PatchKind(str, Enum):
    """How a patch is to be read; the value is its media type."""

    MERGE = "application/merge-patch+json"
    OPERATIONS = "application/json-patch+json"


def patch_document(document: bytes, patch: bytes, kind: PatchKind, limit: int) -> bytes:
    """Return ``document`` with ``patch`` applied, written compactly; all of the patch applies or nothing of it.

    Raises InvalidPatchError when ``patch`` is not one of its ``kind``; PatchConflictError when it does not apply;
    DocumentTooLargeError or InvalidDocumentError when what comes out could not be published.
    """
    target: object = parse_json_object(document, strict=True)
    try:
        if kind is PatchKind.MERGE:
            patched = merge(target, _merge_patch(patch))
        else:
            patched = apply_operations(target, _operations(patch), limit)
        changed = serialise(patched)
    except RecursionError:
        changed = None
    if changed is None:
        raise InvalidDocumentError(_DEEP)
    check_document(changed, limit)
    return changed


def merge(target: object, patch: object) -> object:
    """Return ``target`` as the merge patch ``patch`` makes it (RFC 7396, 2); neither of them is changed."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, object] = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def apply_operations(document: object, operations: list[dict[str, Any]], limit: int) -> object:
    """Return what the operations of a JSON Patch (RFC 6902, 4) make of ``document``, which may be changed on the way.

    What ``copy`` operations copy may take ``limit`` bytes in all: each may double a document, and a patch holds many.

    Raises InvalidPatchError, PatchConflictError or DocumentTooLargeError, which name the operation by its number.
    """
    copied = 0
    for number, operation in enumerate(operations, start=1):
        name = operation.get("op")
        if not isinstance(name, str) or name not in _OPERATIONS:
            raise InvalidPatchError(f"operation {number}: op must be one of {', '.join(sorted(_OPERATIONS))}")
        fault: InvalidPatchError | PatchConflictError
        try:
            if name == "copy":
                copied += len(serialise(jsonpatch.JsonPointer(operation["from"]).resolve(document)))
                if copied > limit:
                    raise DocumentTooLargeError(f"operation {number}: the patch copies more than {limit} bytes")
            document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
            continue
        except jsonpatch.JsonPatchTestFailed:
            fault = PatchConflictError(f"operation {number}: the test does not hold; read the draft and try again")
        except jsonpatch.JsonPatchConflict:
            fault = _leads_nowhere(number, name)
        except jsonpatch.InvalidJsonPatch:
            fault = InvalidPatchError(f"operation {number} ({name}): a member is missing or malformed (RFC 6902, 4)")
        except jsonpatch.JsonPointerException:
            fault = _leads_nowhere(number, name)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            fault = InvalidPatchError(f"operation {number} ({name}): a member is missing or malformed (RFC 6902, 4)")
        # Raised outside of the handlers: the errors of the library hold operations with their values.
        raise fault
    return document


def _leads_nowhere(number: int, name: str) -> PatchConflictError:
    return PatchConflictError(f"operation {number} ({name}): a path leads nowhere in the draft; read it and try again")


def _merge_patch(patch: bytes) -> dict[str, object]:
    try:
        return parse_json_object(patch, strict=True)
    except DocumentError as error:
        message = str(error)
    raise InvalidPatchError(f"invalid merge patch: {message}")


def _operations(patch: bytes) -> list[dict[str, Any]]:
    # Read as the only member of a document, so that the same strictness and limits hold as for one.
    try:
        operations = parse_json_object(b'{"patch":' + patch + b"}", strict=True)
        found: object = operations.pop("patch")
    except DocumentError:
        operations, found = {}, None
    if operations or not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidPatchError("invalid JSON Patch: expected an array of operations, strict JSON in UTF-8 (RFC 6902)")
    return found
