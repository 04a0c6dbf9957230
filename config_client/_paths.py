"""What differs between two values, as paths: the keys, fields and indices that lead to each deepest changed place.

Knows mappings, dataclasses, pydantic models, lists and tuples; whatever else there is counts as one place, compared by
``==``. Knows nothing of snapshots. Never raises for a value, whatever it is, and needs no stack for a deep one.

A path joins its steps with dots: ``db.host``, ``servers.0.port``. In a step ``~0`` stands for ``~``, ``~1`` for a dot,
and a step that is empty is written ``~2`` (as in JSON Pointer, RFC 6901, with the dot in place of the slash). Fields go
by their names in Python. The empty path is the whole value.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, Final, NamedTuple

from .errors import ConfigClientError

_PATH: Final = re.compile(r"(?:(?:[^.~]|~[01])+|~2)(?:\.(?:(?:[^.~]|~[01])+|~2))*", re.DOTALL)


class _Missing(Enum):
    MISSING = 0


_MISSING: Final = _Missing.MISSING

_SIMPLE: Final = frozenset({str, int, float, bool, NoneType, bytes, _Missing})
"""Types that are looked at often and consist of nothing."""


class ChangedPaths:
    """The deepest changed places between two values. ``everything``: nothing was there before."""

    __slots__ = ("_everything", "_sorted", "paths")

    def __init__(self, paths: Iterable[str], *, everything: bool = False) -> None:
        self.paths: Final = frozenset(paths)
        self._sorted = sorted(self.paths)
        self._everything = everything

    def include(self, path: str) -> bool:
        """Tell whether something at or below ``path`` changed, or what it is part of was replaced as a whole.

        Raises ConfigClientError for what is no path.
        """
        check_path(path)
        if self._everything or (not path and self.paths) or path in self.paths or "" in self.paths:
            return True
        below = f"{path}."
        at = bisect_left(self._sorted, below)
        if at < len(self._sorted) and self._sorted[at].startswith(below):
            return True
        end = path.rfind(".")
        while end > 0:
            if path[:end] in self.paths:
                return True
            end = path.rfind(".", 0, end)
        return False


def check_path(path: str) -> None:
    """Raise ConfigClientError unless ``path`` could be one: a mistyped path would never be told of."""
    if not isinstance(path, str) or (path and not _PATH.fullmatch(path)):
        raise ConfigClientError(
            "a path joins keys with dots, such as db.host or servers.0.port; in a key, ~ is written ~0, a dot ~1, and "
            "an empty key ~2"
        )


def changed_paths(old: object, new: object) -> ChangedPaths:
    """Return where ``new`` differs from ``old``; None as ``old`` means that there was nothing, and all is new."""
    first = old is None
    return ChangedPaths(_differences(_MISSING if first else old, new), everything=first)


class _Place(NamedTuple):
    """One step down from another place. Text is made of it only for what changed: most places have not."""

    above: _Place | None
    step: str

    def __str__(self) -> str:
        steps: list[str] = []
        place: _Place | None = self
        while place is not None:
            steps.append(place.step)
            place = place.above
        return ".".join(reversed(steps))


class _Inside(NamedTuple):
    """What a value consists of. Values of different kinds share no place, even where their steps are named alike."""

    kind: object
    parts: dict[str, object]


class _Pair(NamedTuple):
    """Two values that stand at one place, or that stood there and are done with."""

    old: object
    new: object
    place: _Place | None
    is_done: bool = False


def _differences(old: object, new: object) -> Iterator[str]:
    waiting = [_Pair(old, new, None)]
    # What is being looked into, by identity (the pairs that wait keep it alive): a value may contain itself.
    entered: set[tuple[int, int]] = set()
    while waiting:
        pair = waiting.pop()
        old, new, place, is_done = pair
        key = (id(old), id(new))
        if is_done:
            entered.discard(key)
            continue
        before, after = _inside(old), _inside(new)
        if key in entered:
            is_changed = old is _MISSING or new is _MISSING
        elif before is None and after is None:
            is_changed = not _is_same(old, new)
        else:
            entered.add(key)
            waiting.append(pair._replace(is_done=True))
            if before is not None and after is not None and before.kind == after.kind:
                is_changed = False
                waiting += _pairs(before.parts, after.parts, place)
            else:
                is_changed = _is_end(old, before) or _is_end(new, after)
                waiting += _pairs(before.parts if before else {}, {}, place)
                waiting += _pairs({}, after.parts if after else {}, place)
        if is_changed:
            yield str(place or "")


def _pairs(old: dict[str, object], new: dict[str, object], above: _Place | None) -> Iterator[_Pair]:
    for step, value in old.items():
        other = new.get(step, _MISSING)
        if value is not other:
            yield _Pair(value, other, _Place(above, step))
    for step, value in new.items():
        if step not in old:
            yield _Pair(_MISSING, value, _Place(above, step))


def _is_end(value: object, inside: _Inside | None) -> bool:
    """Tell whether ``value`` is a place of its own, rather than only the way to others."""
    return value is not _MISSING and (inside is None or not inside.parts)


def _inside(value: object) -> _Inside | None:
    """Return what ``value`` consists of, or None when it counts as one place."""
    kind = type(value)
    if kind in _SIMPLE:
        return None
    try:
        if isinstance(value, Mapping):
            parts = {_step(key): part for key, part in value.items()}
            # Keys that are written alike, such as 1 and "1", would hide one another.
            return _Inside(Mapping, parts) if len(parts) == len(value) else None
        if isinstance(value, (list, tuple)):
            sequence = list if isinstance(value, list) else tuple
            return _Inside(sequence, {str(index): part for index, part in enumerate(value)})
        # pydantic's classes carry this mark, and looking for it does not import pydantic.
        is_root: bool | None = getattr(kind, "__pydantic_root_model__", None)
        if is_root is not None:
            return _inside_model(value, is_root=is_root)
        if is_dataclass(value):
            names = (each.name for each in fields(value) if each.compare)
            return _Inside(kind, {_escaped(name): getattr(value, name) for name in names if hasattr(value, name)})
    except Exception:  # whatever a foreign class raises when it is looked into, it is then one place
        return None
    return None


def _inside_model(model: Any, *, is_root: bool) -> _Inside | None:
    if is_root:
        return _inside(model.root)
    held = {name: vars(model)[name] for name in type(model).model_fields if name in vars(model)}
    extra = model.__pydantic_extra__ or {}
    return _Inside(type(model), {_escaped(name): part for name, part in (held | extra).items()})


def _is_same(old: object, new: object) -> bool:
    # In JSON, 1, 1.0 and true are three values; in Python they are equal.
    if type(old) is not type(new):
        return False
    try:
        return bool(old == new) or (isinstance(old, float) and old != old and new != new)  # noqa: PLR0124 - NaN
    except Exception:  # a foreign class may raise anything, or answer with what is neither true nor false
        return False


def _step(key: object) -> str:
    return _escaped(str(key.value if isinstance(key, Enum) else key))


def _escaped(key: str) -> str:
    if not key:
        return "~2"
    return key.replace("~", "~0").replace(".", "~1") if "." in key or "~" in key else key
