"""The keys over what a store keeps, and the sealed values themselves, as a store sees them. Pure, and opens nothing.

A store keeps data keys wrapped and values sealed. All it has to know of a sealed value is which data key it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from .keys import ConfigKey
from .records import ChangeKind, WrappedKey

DATA_KEY_FORMAT: Final = b"\x02"
"""The first byte of a value that is sealed under a data key; the key's id follows, 4 bytes, big-endian."""
MASTER_KEY_ID: Final = 0
"""What stands for the id where a value is sealed in format 1, under keys that come from a master key directly."""


@dataclass(frozen=True, slots=True)
class NewKeys:
    """All keys of a store from now on, by id, conditional on ``base`` still being the ones it has.

    ``kind`` None gives a store its first keys, which takes no revision. ``check`` takes the place of the check value of
    the store; None leaves it as it is.
    """

    base: tuple[WrappedKey, ...]
    keys: tuple[WrappedKey, ...]
    kind: ChangeKind | None
    changed_by: int
    timestamp: datetime
    check: bytes | None = None


class SealedKind(str, Enum):
    """What a sealed value is."""

    DOCUMENT = "document"
    DRAFT = "draft"
    SCHEMA = "schema"
    TOKEN_KEY = "token_key"  # noqa: S105 - not a password


SEALED_KINDS: Final = tuple(SealedKind)
"""In the order in which a store tells its sealed values."""


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """Where a sealed value is. ``number`` is a version, the base of a draft, the number of a schema, or a token's id.

    The keys of one token share a place; they differ by what they are sealed as.
    """

    kind: SealedKind
    key: ConfigKey | None
    number: int


@dataclass(frozen=True, slots=True)
class SealedValue:
    """A sealed value, and where it is."""

    place: SealedPlace
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Resealed:
    """The same value sealed anew, conditional on ``before`` still being what is there."""

    place: SealedPlace
    before: bytes
    after: bytes


def data_key_id(sealed: bytes) -> int:
    """Return the id of the data key under which a value is sealed; ``MASTER_KEY_ID`` for whatever is not format 2."""
    return int.from_bytes(sealed[1:5], "big") if sealed[:1] == DATA_KEY_FORMAT else MASTER_KEY_ID
