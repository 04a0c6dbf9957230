"""Drafts as cells of a journal. Pure.

A cell's name has a part for whoever reads it and a part that tells keys apart on any file system, whatever their case.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from config_client.protocol import format_timestamp, parse_timestamp

from ...domain.keys import ConfigKey
from ...domain.records import Draft
from .fields import Fields
from .protocol import Cell
from .record import MALFORMED, damaged, key_fields, read_key
from .state import State

PREFIX: Final = "drafts/"
_READABLE: Final = 80
"""Characters of a key that its cell's name shows."""


def cell_name(key: ConfigKey) -> str:
    """Return the name of the cell for the draft of ``key``: lower case, digits, and a few marks."""
    parts = (key.name, key.environment, key.label)
    shown = "_".join(re.sub(r"[^a-z0-9.-]", "-", part.lower()) for part in parts)[:_READABLE]
    identity = sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{PREFIX}{shown}_{identity[:32]}"


def cell(draft: Draft) -> Cell:
    """Return the cell that keeps ``draft``."""
    fields = {
        **key_fields(draft.key),
        "base": draft.base,
        "changed_by": draft.changed_by,
        "timestamp": format_timestamp(draft.timestamp),
    }
    return Cell(draft.document, fields)


def read(kept: Cell) -> Draft:
    """Return the draft that a cell keeps. Raises StoreCorruptError."""
    try:
        fields = Fields(kept.fields)
        return Draft(
            key=read_key(fields),
            base=fields.number("base"),
            document=kept.value,
            changed_by=fields.number("changed_by"),
            timestamp=parse_timestamp(fields.text("timestamp")),
        )
    except MALFORMED:
        pass
    raise damaged("a draft")


def standing(state: State, key: ConfigKey, kept: Cell | None) -> Cell | None:
    """Return ``kept`` unless it is only what a crash has left of a draft that was published."""
    return None if kept is None or state.was_published(key, kept.value) else kept
