"""Drafts of configs, which take no revision."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select

from ...domain.keys import ConfigKey
from ...domain.records import Draft
from .. import rows
from ..protocol import DraftConflictError
from ..schema import drafts
from . import data_keys, history
from .keys import is_key, next_page, of

_DRAFT: Final = select(drafts).where(is_key(drafts))
_REMOVE: Final = delete(drafts).where(is_key(drafts), drafts.c.document == bindparam("before"))

_PAGE: Final = next_page(drafts)


def find(connection: Connection, key: ConfigKey) -> Draft | None:
    """Return the draft of ``key``, or None."""
    row = connection.execute(_DRAFT, of(key)).mappings().first()
    return None if row is None else rows.read_draft(row)


def after(connection: Connection, key: ConfigKey) -> list[Draft]:
    """Return the drafts of the keys that come next after ``key``, ordered by key; at most a page."""
    return [rows.read_draft(row) for row in connection.execute(_PAGE, of(key)).mappings()]


def replace(connection: Connection, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
    """Make ``after`` the draft of ``key``; None leaves it without one.

    Raises DraftConflictError when the draft there is was not sealed as ``before`` (None: there is none), or
    SealingKeyError.
    """
    history.lock(connection)
    if before is not None:
        remove(connection, key, before)
    elif connection.execute(_DRAFT, of(key)).first() is not None:
        raise DraftConflictError(key)
    if after is not None:
        data_keys.require_active(connection, after.document)
        connection.execute(insert(drafts), rows.draft_values(after))


def remove(connection: Connection, key: ConfigKey, sealed: bytes) -> None:
    """Remove the draft of ``key`` that was sealed as ``sealed``. Raises DraftConflictError when it is another one."""
    if connection.execute(_REMOVE, {**of(key), "before": sealed}).rowcount == 0:
        raise DraftConflictError(key)
