"""The one row of ``history``, whose lock orders all writers, and the log of changes."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from config_client.protocol import Position

from ...domain.records import BesideLog, Head, Link, LogEntry
from .. import rows
from ..schema import history, log, savepoints
from .keys import MAX_NUMBER

_LOCK: Final = update(history).values(revision=history.c.revision)
_NEXT_REVISION: Final = update(history).values(revision=history.c.revision + 1).returning(history.c.revision)
_NEXT_TOKEN: Final = (
    update(history)
    .values(revision=history.c.revision + 1, last_token_id=history.c.last_token_id + 1)
    .returning(history.c.revision, history.c.last_token_id)
)
_LINK: Final = select(history.c.link)
_SET_LINK: Final = update(history).values(link=bindparam("newest"))
_LOG: Final = select(log).where(log.c.revision > bindparam("after")).order_by(log.c.revision).limit(bindparam("most"))


def lock(connection: Connection) -> None:
    """Make this transaction the only writer until it ends, in any database. Takes no revision."""
    connection.execute(_LOCK)


def next_revision(connection: Connection) -> int:
    """Return the revision that this transaction takes, which is the only writer from here on."""
    revision: int = connection.execute(_NEXT_REVISION).scalar_one()
    return revision


def next_token(connection: Connection) -> tuple[int, int]:
    """Return the revision that this transaction takes, and the id of a new token."""
    revision, token_id = connection.execute(_NEXT_TOKEN).one()
    return revision, token_id


def append(connection: Connection, entry: LogEntry, link: Link | None) -> LogEntry:
    """Add ``entry`` to the log, chained by ``link``, and return it as it stands there. Raises what ``link`` raises."""
    if link is not None:
        entry = link(entry, rows.read_link(connection.execute(_LINK).scalar_one()))
        connection.execute(_SET_LINK, {"newest": entry.link})
    connection.execute(insert(log), rows.log_values(entry))
    return entry


def entries(connection: Connection, after: int, limit: int) -> list[LogEntry]:
    """Return at most ``limit`` entries with a revision above ``after``, in order."""
    window = {"after": max(0, min(after, MAX_NUMBER)), "most": max(0, min(limit, MAX_NUMBER))}
    return [rows.read_log_entry(row) for row in connection.execute(_LOG, window).mappings()]


def position(connection: Connection) -> Position:
    """Return the epoch and the newest revision."""
    return rows.read_position(connection.execute(select(history.c.epoch, history.c.revision)).mappings().one())


def head(connection: Connection) -> Head:
    """Return where the log ends, as of one moment."""
    columns = select(history.c.epoch, history.c.revision, history.c.link)
    return rows.read_head(connection.execute(columns).mappings().one())


def beside_log(connection: Connection) -> BesideLog:
    """Return what is kept beside the log. Raises StoreCorruptError."""
    last_token_id, check = connection.execute(select(history.c.last_token_id, history.c.seal_check)).one()
    named = connection.execute(select(savepoints.c.name, savepoints.c.environment, savepoints.c.label).distinct())
    return BesideLog(
        rows.read_last_token_id(last_token_id),
        rows.read_check(check),
        frozenset(rows.read_named(row) for row in named.mappings()),
    )


def seal_check(connection: Connection, candidate: bytes) -> bytes:
    """Return the sealed check value; where there is none yet, keep ``candidate`` and return it."""
    connection.execute(update(history).where(history.c.seal_check.is_(None)).values(seal_check=candidate))
    return rows.read_check(connection.execute(select(history.c.seal_check)).scalar_one()) or candidate
