"""Every sealed value of the store, whatever it is of: to be read in order, counted, and replaced by the same anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, and_, bindparam, func, select, tuple_, update

from ...domain.keys import ConfigKey
from ...domain.sealing import (
    SEALED_KINDS,
    Resealed,
    SealedKind,
    SealedPlace,
    SealedValue,
    data_key_id,
)
from .. import rows
from ..schema import drafts, schemas, tokens, versions
from . import data_keys, history
from .keys import FIRST, MAX_NUMBER, is_key, of

_PREFIX: Final = 5
"""Bytes of a sealed value that tell its format and its data key."""


@dataclass(frozen=True)
class _Kind:
    """Where the values of one kind are that belong to a config: a table, and its columns of number and value."""

    kind: SealedKind
    table: Table
    number: Column[int]
    value: Column[bytes]

    def after(self, connection: Connection, key: ConfigKey, number: int, limit: int) -> list[SealedValue]:
        """Return at most ``limit`` values that come after ``number`` of ``key``, in order."""
        place = (self.table.c.name, self.table.c.environment, self.table.c.label, self.number)
        found = connection.execute(
            select(*place, self.value)
            .where(self.value.is_not(None), tuple_(*place) > tuple_(key.name, key.environment, key.label, number))
            .order_by(*place)
            .limit(limit)
        )
        return [
            SealedValue(SealedPlace(self.kind, ConfigKey(name, environment, label), number), sealed)
            for name, environment, label, number, sealed in found
        ]

    def count(self, connection: Connection) -> Counter[int]:
        """Return how many values there are by data key."""
        prefix = func.substr(self.value, 1, _PREFIX)
        found = connection.execute(select(prefix, func.count()).where(self.value.is_not(None)).group_by(prefix))
        counts: Counter[int] = Counter()
        for sealed, count in found:
            # What is empty has no prefix.
            counts[data_key_id(sealed or b"")] += count
        return counts

    def reseal(self, connection: Connection, change: Resealed) -> bool:
        """Put ``change.after`` in the place of ``change.before``; False when something else is there by now."""
        if change.place.key is None:
            return False
        statement = (
            update(self.table)
            .where(and_(is_key(self.table), self.number == bindparam("of_number"), self.value == bindparam("before")))
            .values({self.value: bindparam("after")})
        )
        found = {"of_number": change.place.number, "before": change.before, "after": change.after}
        return connection.execute(statement, of(change.place.key) | found).rowcount > 0


_BY_KEY: Final = {
    one.kind: one
    for one in (
        _Kind(SealedKind.DOCUMENT, versions, versions.c.version, versions.c.document),
        _Kind(SealedKind.DRAFT, drafts, drafts.c.base, drafts.c.document),
        _Kind(SealedKind.SCHEMA, schemas, schemas.c.number, schemas.c.schema),
    )
}


def after(connection: Connection, place: SealedPlace | None, limit: int) -> list[SealedValue]:
    """Return about ``limit`` sealed values that come after ``place`` (None: from the first), in order.

    Empty when there is none. The keys of one token are told together, over the limit if need be.
    """
    kinds = SEALED_KINDS[0 if place is None else SEALED_KINDS.index(place.kind) :]
    found: list[SealedValue] = []
    for kind in kinds:
        here = place if place is not None and place.kind is kind else None
        number = 0 if here is None else max(0, min(here.number, MAX_NUMBER))
        if len(found) >= limit:
            break
        if kind is SealedKind.TOKEN_KEY:
            found += _token_keys(connection, number, limit - len(found))
        else:
            key = (here and here.key) or FIRST
            # A draft may have been made on version 0.
            first = -1 if here is None else number
            found += _BY_KEY[kind].after(connection, key, first, limit - len(found))
    return found


def counts(connection: Connection) -> dict[int, int]:
    """Return how many sealed values there are under each data key; 0 stands for format 1."""
    found: Counter[int] = Counter()
    for kind in _BY_KEY.values():
        found.update(kind.count(connection))
    for (keys,) in connection.execute(select(tokens.c["keys"])):
        found.update(data_key_id(sealed) for sealed in _sealed_of(keys))
    return dict(found)


def reseal(connection: Connection, changes: Sequence[Resealed]) -> int:
    """Replace each value that is still as it was by itself, sealed anew; return how many. Takes no revision.

    Raises SealingKeyError when one of them is not sealed under the active key; then none is replaced.
    """
    history.lock(connection)
    data_keys.require_active(connection, *(change.after for change in changes))
    return sum(
        _reseal_token_key(connection, change)
        if change.place.kind is SealedKind.TOKEN_KEY
        else _BY_KEY[change.place.kind].reseal(connection, change)
        for change in changes
    )


def _token_keys(connection: Connection, token_id: int, limit: int) -> list[SealedValue]:
    found: list[SealedValue] = []
    statement = select(tokens.c.id, tokens.c["keys"]).where(tokens.c.id > token_id).order_by(tokens.c.id).limit(limit)
    for number, keys in connection.execute(statement):
        if len(found) >= limit:
            break
        found += [SealedValue(SealedPlace(SealedKind.TOKEN_KEY, None, number), sealed) for sealed in _sealed_of(keys)]
    return found


def _reseal_token_key(connection: Connection, change: Resealed) -> bool:
    is_token = tokens.c.id == change.place.number
    row = connection.execute(select(tokens).where(is_token)).mappings().first()
    if row is None:
        return False
    keys = rows.read_token(row).keys
    newest = tuple(replace(key, sealed=change.after) if key.sealed == change.before else key for key in keys)
    if newest == keys:
        return False
    written = update(tokens).where(is_token, tokens.c["keys"] == row["keys"]).values(keys=rows.keys_text(newest))
    return connection.execute(written).rowcount > 0


def _sealed_of(keys: str) -> Iterable[bytes]:
    parsed: list[dict[str, Any]] = json.loads(keys)
    return [bytes.fromhex(key["sealed"]) for key in parsed]
