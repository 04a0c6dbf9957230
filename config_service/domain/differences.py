"""What differs between two documents, place by place. Pure.

Knows JSON values and JSON Pointers (RFC 6901). Knows nothing of configs, stores or HTTP. A difference holds values of
the documents: it is for whoever may see both of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from .json_values import same


class Change(str, Enum):
    """What happened to a place."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """One place that differs; ``old`` is None when it was added, ``new`` when it was removed. Its repr has no value."""

    op: Change
    path: str
    old: object = None
    new: object = None

    def __repr__(self) -> str:
        return f"Difference({self.op.value}, {self.path!r})"


def pointer(parts: list[str | int]) -> str:
    """Return the JSON Pointer of ``parts``, keys and indices (RFC 6901, 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def differences(old: object, new: object) -> list[Difference]:
    """Return what leads from ``old`` to ``new``, as few places as there are, in an order in which it can be applied.

    Objects are compared key by key, arrays index by index; what is longer at the end of an array was added there, and
    is removed from the last index down. The order of keys is no difference; 1, 1.0 and true are different values.
    Applied one by one (added, changed: put ``new`` at ``path``; removed: take it away) the list turns ``old`` into
    ``new``.
    """
    return list(_between(old, new, ""))


def _between(old: object, new: object, path: str) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            place = path + pointer([key])
            if key in new:
                yield from _between(value, new[key], place)
            else:
                yield Difference(Change.REMOVED, place, old=value)
        for key, value in new.items():
            if key not in old:
                yield Difference(Change.ADDED, path + pointer([key]), new=value)
    elif isinstance(old, list) and isinstance(new, list):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from _between(before, after, f"{path}/{index}")
        for index in range(len(old) - 1, len(new) - 1, -1):
            yield Difference(Change.REMOVED, f"{path}/{index}", old=old[index])
        for index in range(len(old), len(new)):
            yield Difference(Change.ADDED, f"{path}/{index}", new=new[index])
    elif not same(old, new):
        yield Difference(Change.CHANGED, path, old, new)
