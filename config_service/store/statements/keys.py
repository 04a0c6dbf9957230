"""Statements over tables whose rows belong to a key: name, environment, label."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Select, Table, and_, bindparam, func, select, tuple_

from ...domain.keys import ConfigKey
from .. import rows

PAGE: Final = 64
"""Rows read at a time, so that iterating holds some documents and no connection."""
MAX_NUMBER: Final = 2**63 - 1
"""The largest integer of a database. Nothing larger is in it, and binding it would be an error."""
FIRST: Final = ConfigKey("", "", "")
"""A key that comes before every other one."""


def is_key(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the key that ``of`` binds."""
    return and_(*(column == bindparam(f"of_{column.key}") for column in _key(table)))


def of(key: ConfigKey) -> dict[str, object]:
    """Return what ``is_key`` and the pages want bound."""
    return {f"of_{column}": value for column, value in rows.key_values(key).items()}


def newest_page(table: Table, number: Column[int]) -> Select[Any]:
    """Return the statement for the rows with the highest ``number`` of the keys that come next, ordered by key."""
    key = _key(table)
    page = (
        select(*key, func.max(number).label("newest"))
        .where(_is_after(key))
        .group_by(*key)
        .order_by(*key)
        .limit(PAGE)
        .subquery()
    )
    same_key = (page.c[column.key] == column for column in key)
    return select(table).join(page, and_(number == page.c.newest, *same_key)).order_by(*key)


def next_page(table: Table) -> Select[Any]:
    """Return the statement for the rows of the keys that come next, ordered by key, in a table of one row per key."""
    key = _key(table)
    return select(table).where(_is_after(key)).order_by(*key).limit(PAGE)


def is_number(number: int) -> bool:
    """Tell whether ``number`` can be the number or id of a row."""
    return 0 < number <= MAX_NUMBER


def _is_after(key: tuple[Column[str], ...]) -> ColumnElement[bool]:
    return tuple_(*key) > tuple_(*(bindparam(f"of_{column.key}", type_=column.type) for column in key))


def _key(table: Table) -> tuple[Column[str], ...]:
    return table.c.name, table.c.environment, table.c.label
