"""What errors of PostgreSQL mean to an operator. Knows their codes, and repeats no statement and no URL."""

from __future__ import annotations

from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from ..domain.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError

GONE: Final = "the connection was lost; check that the server runs and can be reached"
_FAULTS: Final[dict[str, tuple[type[StoreError], str]]] = {
    "42501": (StoreError, "the user lacks a right; make it the owner of the database"),
    "25006": (StoreError, "the server is a standby or read-only; the store URL must lead to the primary"),
    "53100": (StoreFullError, "no space left on the server's disk"),
    "53200": (StoreError, "the server is out of memory"),
    "55P03": (StoreLockedError, "another writer holds the store for long; see pg_stat_activity"),
    "57014": (StoreError, "the statement was cancelled"),
    "57P01": (StoreError, GONE),
    "57P02": (StoreError, GONE),
    "57P05": (StoreError, GONE),
    "25P03": (StoreError, "the transaction stood still for too long and was ended"),
    "XX001": (StoreCorruptError, "the server reports damaged data; restore a backup"),
    "XX002": (StoreCorruptError, "the server reports a damaged index; reindex, or restore a backup"),
}


def failure_of(error: Exception, name: str) -> StoreError:
    """Return what ``error`` of the database ``name`` means, without its text: that may hold parts of a statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.Error):
        code = cause.sqlstate
        if code is None:
            remedy = GONE if isinstance(cause, psycopg.OperationalError) else "the driver failed"
            return StoreError(f"{name}: {remedy} ({type(cause).__name__})")
        kind, remedy = _FAULTS.get(code) or (StoreError, GONE if code[:2] == "08" else "PostgreSQL failed")
        return kind(f"{name}: {remedy} ({code} {type(cause).__name__})")
    return StoreError(f"{name}: unexpected {type(cause).__name__} in the store")


def words_of_the_server(error: psycopg.Error) -> str:
    """Return why the server itself refused a connection. libpq's own words may repeat parts of a malformed URL."""
    _, found, words = str(error).partition("FATAL:")
    return f" (it says: {words.splitlines()[0].strip()})" if found else ""
