"""The cells of a store that are not drafts: the check value of its master key, and its first keys. Pure."""

from __future__ import annotations

from typing import Final

from ...domain.records import WrappedKey
from .fields import Fields
from .protocol import Cell
from .record import MALFORMED, damaged, keys_fields, read_keys

CHECK: Final = "check"
KEYS: Final = "keys"


def keys_cell(keys: tuple[WrappedKey, ...], check: bytes | None = None) -> Cell:
    """Return the cell of the keys that a store had before any record put others in place. It is written once.

    Its value is the check value that came with them, if one did.
    """
    return Cell(check or b"", keys_fields(keys))


def first_keys(cell: Cell | None) -> tuple[WrappedKey, ...]:
    """Return the keys that the cell keeps. Raises StoreCorruptError."""
    if cell is None:
        return ()
    try:
        return read_keys(Fields(cell.fields))
    except MALFORMED:
        pass
    raise damaged("the first keys of the store")
