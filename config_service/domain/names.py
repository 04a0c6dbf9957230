"""How a version is named: by its number, or by a savepoint. Pure."""

from __future__ import annotations

import re
from typing import Final

from .errors import InvalidRequestError

SAVEPOINT_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9._-]{0,63}$"
_SAVEPOINT: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}\Z")
_TAKEN: Final = frozenset({"staged", "running"})

Which = int | str
"""The number of a version, or the name of a savepoint."""


def is_savepoint(text: str) -> bool:
    """Tell whether ``text`` may be the name of a savepoint: none is a number, nor what a difference calls its sides."""
    return _SAVEPOINT.match(text) is not None and text not in _TAKEN


def check_savepoint(text: str) -> str:
    """Return ``text``, or raise InvalidRequestError, which tells the rule and not the text."""
    if not is_savepoint(text):
        raise InvalidRequestError(
            "invalid savepoint: 1 to 64 of A-Z a-z 0-9 . _ - beginning with a letter, and neither staged nor running"
        )
    return text
