"""What does not fit: places in a document, and what was expected there.

Knows paths, names of types and kinds of JSON values. Keeps no value of a document, so nothing built from it can
repeat one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Final

from ._documents import child, shown

MAX_PROBLEMS_SHOWN: Final = 10

_KINDS: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: the keys and indices that lead to it, shown as a JSON Pointer (RFC 6901), and what is wrong there."""

    path: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        return f"{shown(reduce(child, self.path, '')) or '(document)'}: {self.text}"


class MisfitError(Exception):
    """A value does not fit its type. Stays inside the SDK: ``decode`` turns it into an UnmarshalError."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return describe(self.problems)

    @classmethod
    def at_root(cls, text: str) -> MisfitError:
        """Return the misfit of a whole value; whoever holds that value adds its place with ``under``."""
        return cls((Problem((), text),))

    @classmethod
    def expected(cls, wanted: str, value: object) -> MisfitError:
        """Return the misfit of ``value``, of which only its JSON kind is told."""
        return cls.at_root(f"expected {wanted}, got {_KINDS.get(type(value), 'something else')}")

    def under(self, step: str | int) -> list[Problem]:
        """Return the problems as seen from the object or array that holds the value at ``step``."""
        return [Problem((step, *problem.path), problem.text) for problem in self.problems]


def describe(problems: Sequence[Problem]) -> str:
    """Return the problems as one line, the first ten in full and the rest as a count."""
    told = "; ".join(str(problem) for problem in problems[:MAX_PROBLEMS_SHOWN])
    more = len(problems) - MAX_PROBLEMS_SHOWN
    return f"{told}; and {more} more" if more > 0 else told
