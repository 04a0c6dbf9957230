"""What concurrent clients did and were told, with the moments before and after. Pure values; nothing is judged here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

Key = str
"""The name of a config."""


@dataclass(frozen=True, slots=True)
class Publish:
    """A publish. ``number`` is what the document says, different for each; what was not acknowledged has no answer."""

    key: Key
    number: int
    asked: float
    answered: float | None = None
    version: int | None = None
    revision: int | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether the service said that it is durable."""
        return self.answered is not None


@dataclass(frozen=True, slots=True)
class Read:
    """A read by a client, which has a name: the number in the document that it got."""

    client: str
    key: Key
    asked: float
    number: int


@dataclass(frozen=True, slots=True)
class Event:
    """A change that a client was told by its watch. ``seen``: the moment at which the application had it."""

    client: str
    key: Key
    seen: float
    version: int
    number: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A version as the store has it in the end."""

    key: Key
    version: int
    revision: int
    number: int


@dataclass(slots=True)
class History:
    """Everything that was recorded of one run. Appending is safe on any thread."""

    publishes: list[Publish] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    """Every version of every key, read at the end."""
    held: dict[tuple[str, Key], int] = field(default_factory=dict)
    """The version that each client's watch holds at the end, by client and key."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, record: Publish | Read | Event) -> None:
        """Keep one record."""
        with self._lock:
            if isinstance(record, Publish):
                self.publishes.append(record)
            elif isinstance(record, Read):
                self.reads.append(record)
            else:
                self.events.append(record)
