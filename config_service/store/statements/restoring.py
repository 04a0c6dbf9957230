"""Filling an empty SQL store with the records of another one, within one transaction.

Knows tables and in which order their references allow rows. Knows no thread and no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from config_client.protocol import Position

from ...domain.records import Draft, LogEntry, Record, SealCheck, StoredSchema, StoredToken, Version, WrappedKey
from .. import rows
from ..protocol import StoreNotEmptyError
from ..schema import data_keys, drafts, history, log, metadata, schemas, tokens, versions
from . import savepoints
from . import versions as versions_of_store
from .history import lock, position

_ROWS: Final[Mapping[type[Any], tuple[Table, Callable[[Any], dict[str, object]]]]] = {
    Draft: (drafts, rows.draft_values),
    LogEntry: (log, rows.log_values),
    Version: (versions, rows.version_values),
    StoredSchema: (schemas, rows.schema_values),
    StoredToken: (tokens, rows.token_values),
    WrappedKey: (data_keys, rows.data_key_values),
}
"""Where each kind of record is kept, and as which row; what others refer to comes before them."""


class Restoring:
    """One restore under way. When its transaction ends otherwise than by a commit, nothing has happened."""

    def __init__(self, connection: Connection, epoch: str) -> None:
        """Begin with a store that holds nothing. Raises StoreNotEmptyError."""
        self._connection = connection
        self._epoch = epoch
        lock(connection)
        if position(connection).revision or connection.execute(select(drafts.c.name).limit(1)).first() is not None:
            raise StoreNotEmptyError
        # What an empty store has was made for itself when it was opened, and would not fit what comes.
        for table in reversed(metadata.sorted_tables):
            if table is not history:
                connection.execute(delete(table))
        self._about_tokens: list[LogEntry] = []

    def take(self, records: Sequence[Record]) -> None:
        """Write ``records``, which come right after those taken before."""
        for record in records:
            if isinstance(record, SealCheck):
                self._connection.execute(update(history).values(seal_check=record.sealed))
            elif isinstance(record, LogEntry) and record.token_id is not None:
                # A log entry refers to its token, and tokens come last.
                self._about_tokens.append(record)
        for kind in _ROWS:
            self._insert(kind, [one for one in records if type(one) is kind and not _is_about_token(one)])
        for record in records:
            if isinstance(record, LogEntry):
                # The version may have been read before this happened to it.
                versions_of_store.follow(self._connection, record)
                savepoints.follow(self._connection, record)

    def finish(self) -> Position:
        """Write what had to wait, and return where the restored store stands."""
        self._insert(LogEntry, self._about_tokens)
        newest, last_token = (
            self._connection.execute(select(func.coalesce(func.max(column), 0))).scalar_one()
            for column in (log.c.revision, tokens.c.id)
        )
        link = select(log.c.link).where(log.c.link.is_not(None)).order_by(log.c.revision.desc()).limit(1)
        self._connection.execute(
            update(history).values(
                epoch=self._epoch,
                revision=newest,
                last_token_id=last_token,
                link=self._connection.execute(link).scalar(),
            )
        )
        return Position(self._epoch, newest)

    def _insert(self, kind: type[Any], records: Sequence[Record]) -> None:
        table, values = _ROWS[kind]
        if records:
            self._connection.execute(insert(table), [values(record) for record in records])


def _is_about_token(record: Record) -> bool:
    return isinstance(record, LogEntry) and record.token_id is not None
