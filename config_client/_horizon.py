"""The newest state of each config that a client has seen, so that no later answer is older. Does no I/O."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .protocol import DEFAULT_LABEL, Metadata, Position

CAPACITY: Final = 10_000
"""Configs that are remembered; the one not seen for longest is forgotten first."""


class Horizon:
    """Positions by config. Used by several threads: every step is one operation on a dict."""

    __slots__ = ("_default", "_newest")

    def __init__(self) -> None:
        self._newest: OrderedDict[tuple[str, str, str], Position] = OrderedDict()
        self._default: str | None = None

    def note(self, name: str, environment: str | None, label: str | None, told: Metadata) -> None:
        """Remember what an answer for a config has told; ``environment`` is the one that was named, if any."""
        if environment is None and told.environment is not None:
            self._default = told.environment
        where, position = environment or told.environment, told.position
        if where is None or position is None:
            return
        key = (name, where, label or DEFAULT_LABEL)
        known = self._newest.get(key)
        if known is None or known < position:
            self._newest[key] = position
            if len(self._newest) > CAPACITY:
                self._newest.popitem(last=False)

    def of(self, name: str, environment: str | None, label: str | None) -> Position | None:
        """Return the newest position seen of a config, None when it is unknown."""
        where = environment or self._default
        return None if where is None else self._newest.get((name, where, label or DEFAULT_LABEL))
