"""What a journal has to do: keep numbered records in a row, and a few small cells beside them. Knows no place to do it.

A journal is used from the threads of one ``JournalStore``: whatever changes it from one at a time, the rest from
several. What it raises of its own is a ``StoreError``; ``failure`` turns whatever a library raises into one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...domain.errors import StoreError
from .record import Record


@dataclass(frozen=True, slots=True, repr=False)
class Cell:
    """A small value that changes: its sealed bytes, by which a change knows it again, and what describes them."""

    value: bytes
    fields: Mapping[str, object] = field(default_factory=dict)


class Growing(Protocol):
    """The part of a journal that takes something in."""

    def append(self, record: Record) -> bool:
        """Make ``record`` durable. Returns False, and changes nothing, when there is one of its number already.

        It may be called only once every record before it is known to be there.
        """

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        """Put ``after`` (None: nothing) where a cell of the value ``before`` is (None: no cell), durably.

        Returns False, and changes nothing, when something else is there.
        """


class Journal(Growing, Protocol):
    """Records 1, 2, 3 …, each kept whole and for good once it is appended, and cells that change by compare-and-set."""

    @property
    def shared(self) -> bool:
        """Whether others may append to the same journal while this one is open."""

    def open(self) -> str:
        """Open the journal, creating it as needed, and return its epoch.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """

    def close(self) -> None:
        """Release everything. Closing twice, or before opening, is allowed."""

    def scan(self, after: int, *, documents: bool = False) -> Iterator[Record]:
        """Yield the records that begin above revision ``after``, in order; with their documents, or perhaps without."""

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Return the records of these numbers, whole, in this order. Raises StoreCorruptError when one is missing."""

    def cell(self, name: str) -> Cell | None:
        """Return the cell of this name, or None."""

    def cells(self, prefix: str) -> Iterator[Cell]:
        """Yield the cells whose names begin with ``prefix``, in no order."""

    def amend(self, record: Record) -> bool:
        """Put ``record`` in the place of the one of its number, durably and at once: the same, sealed anew.

        Returns False, and changes nothing, when somebody else has amended that one since it was read.
        """

    def restore(self, epoch: str, fill: Callable[[Growing], None]) -> bool:
        """Become the journal that ``fill`` makes of an empty one of ``epoch``, at once and for good.

        Returns False when this one has a record by then. Then, and when anything raises, nothing has changed.
        """

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text: that may hold a secret."""
