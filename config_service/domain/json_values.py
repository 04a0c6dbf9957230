"""JSON values as Python has them: equal only when JSON tells no difference, and written compactly. Pure.

Knows what ``json`` parses. Knows nothing of configs.
"""

from __future__ import annotations

import json

from .errors import InvalidDocumentError


def same(left: object, right: object) -> bool:
    """Tell whether two JSON values would be written alike but for the order of keys: 1, 1.0 and true all differ."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def serialise(value: object) -> bytes:
    """Return ``value`` as compact JSON in UTF-8, characters as themselves.

    Escapes are used only where a text holds half of a surrogate pair, which UTF-8 cannot spell (RFC 8259, 8.2).

    Raises InvalidDocumentError when it is nested too deeply to be written.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:
            return json.dumps(value, separators=(",", ":")).encode()
    except RecursionError:
        pass
    raise InvalidDocumentError("the document is nested too deeply; flatten it")
