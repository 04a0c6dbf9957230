"""All that is PostgreSQL's own: its URL, the settings of a connection, how a transaction begins and ends.

Knows neither records nor the tables of the store, but for the row whose lock orders all writers.

Any number of processes use one database. A transaction that writes takes the lock of the one row of ``history`` with
its first statement, so there is one writer at a time in all processes, in the order of revisions, and no two
transactions can wait for each other. It runs at READ COMMITTED: every statement sees all that was committed before it
began. Under REPEATABLE READ the snapshot would be older than the lock, and each wait for another writer would end in a
serialization failure; with one writer at a time there is nothing that SERIALIZABLE could add.

A connection may be lost at any moment. What was lost before its COMMIT was sent never happened, and is done again. What
was lost at the COMMIT is looked up: with its first statement each transaction also leaves a marker in a row of this
process, and the next one that gets the lock reads whether the marker is there.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, create_engine, delete, event, inspect
from sqlalchemy.exc import DBAPIError

from config_client.protocol import format_timestamp

from ..domain.errors import OutcomeUnknownError, StoreCorruptError, StoreError
from . import migrations
from .postgres_errors import GONE, failure_of, words_of_the_server
from .postgres_listener import PostgresListener

T = TypeVar("T")

SCHEMES: Final = ("postgresql://", "postgres://")
URL_FORM: Final = "postgresql://user:password@host:5432/database"

metadata: Final = MetaData()
writers: Final = Table(
    "writers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("marker", Text, nullable=False),
    Column("seen_at", Text, nullable=False),
)
"""The last transaction of every process that writes, if it was committed. No part of what the store keeps."""

_OWN_TABLES: Final = frozenset({migrations.VERSION_TABLE, "history", "log", "versions", "tokens"})
_PORTS: Final = re.compile(r"\d+(,\d+)*")
_MIGRATION_LOCK: Final = 0x636F6E66
"""The key of the advisory lock under which one process migrates; nobody else takes it in a database of ours."""
_ATTEMPTS: Final = 3
"""How often something is tried whose connection is lost: the second connection is new, the third is for bad luck."""
_PATIENCE: Final = 5.0
"""Seconds in which the outcome of a commit is looked up."""
_PAUSE: Final = 0.1
"""Seconds between two such attempts."""
_WRITERS_KEPT: Final = timedelta(days=1)

_DEFAULTS: Final[dict[str, Any]] = {
    # A host that is gone is noticed in 10 to 20 seconds, and not when the kernel gives up after minutes.
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
    "application_name": "config-service",
    # Of several hosts the primary, and never a standby, which takes no changes and may be behind.
    "target_session_attrs": "read-write",
}
"""What libpq is told where the URL says nothing (PostgreSQL, "Parameter Key Words")."""
_SETTINGS: Final = (
    # Acknowledged means durable: weaker values, which an administrator may have made the default, do not do. A standby
    # that is to have applied every change is more, and stays.
    """SELECT set_config('synchronous_commit', 'on', false)
       WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')""",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    # A process that stands still in the middle of a transaction would hold up all the others.
    "SET idle_in_transaction_session_timeout = '10s'",
    "SET lock_timeout = '15s'",
)
_NO_LIMITS: Final = "SET lock_timeout = 0; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
_BEGIN: Final = """BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT id FROM history FOR UPDATE;
INSERT INTO writers (id, marker, seen_at) VALUES ({row})
ON CONFLICT (id) DO UPDATE SET marker = excluded.marker, seen_at = excluded.seen_at;
NOTIFY config_service"""

_UNREACHABLE: Final = (
    "cannot connect; check that the server runs, can be reached and is the primary, and that user, password and "
    "database of the store URL are right"
)
_FOREIGN: Final = (
    "holds tables of another program; nothing was changed: give the service a database or schema of its own"
)
_logger = logging.getLogger("config_service")


class PostgresDatabase:
    """One PostgreSQL database, which any number of processes use. A ``Database``."""

    shared: Final = True

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = {**_DEFAULTS, **parameters, "client_encoding": "UTF8"}
        place = parameters.get("host") or "localhost"
        port = parameters.get("port")
        self._name = (
            f"PostgreSQL at {place}{f':{port}' if port else ''}, database {parameters.get('dbname') or 'unnamed'}"
        )
        self._writer = secrets.token_hex(8)

    def __repr__(self) -> str:
        return f"PostgresDatabase({self._name!r})"

    @classmethod
    def from_url(cls, url: str) -> PostgresDatabase:
        """Return the database that ``url`` names, as libpq reads it (PostgreSQL, "Connection URIs").

        Raises StoreError, which does not repeat the URL: it may hold a password.
        """
        try:
            parameters = conninfo_to_dict(url)
        except (psycopg.Error, UnicodeDecodeError):
            parameters = {"port": ""}  # their messages repeat what could not be read
        places = [str(parameters.get(part) or "") for part in ("host", "dbname")]
        # Where a password is not percent-encoded, the rest of it is taken for one of these, and would be shown.
        if _PORTS.fullmatch(str(parameters.get("port", "5432"))) and "@" not in "".join(places):
            return cls(parameters)
        raise StoreError(
            f"the store URL cannot be read; use {URL_FORM}, with every character of the password that is no letter or "
            "digit percent-encoded, such as %40 for @"
        )

    def listener(self) -> PostgresListener:
        """Return what hears of the commits of other processes."""
        return PostgresListener(self._connect_to_listen)

    @property
    def name(self) -> str:
        """Server and database."""
        return self._name

    def acquire(self, *, create: bool = True) -> None:
        """Do nothing: several processes are welcome."""

    def release(self) -> None:
        """Do nothing."""

    def connect(self) -> psycopg.Connection[Any]:
        """Return a connection on which every statement stands alone until told otherwise. Raises StoreError."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                connection = psycopg.connect(autocommit=True, **self._parameters)
            except psycopg.Error as error:
                reason = words_of_the_server(error)
                break
            try:
                connection.execute("; ".join(_SETTINGS))
            except BaseException as error:
                lost = isinstance(error, psycopg.Error) and connection.closed
                connection.close()
                if not lost or attempt == _ATTEMPTS:
                    raise
            else:
                return connection
        raise StoreError(f"{self._name}: {_UNREACHABLE}{reason}")

    def reading_engine(self, connections: int) -> Engine:
        """Return an engine on which every statement stands alone and sees the newest commit."""
        return create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            isolation_level="AUTOCOMMIT",
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
            use_native_hstore=False,
        )

    def writing_engine(self) -> Engine:
        """Return an engine of one connection, whose transactions ``transact`` begins."""
        return self.reading_engine(1)

    def query(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads, on another connection where one is lost."""
        for attempt in range(1, _ATTEMPTS + 1):
            with engine.connect() as connection:
                try:
                    return work(connection)
                except DBAPIError as error:
                    if not error.connection_invalidated or attempt == _ATTEMPTS:
                        raise
        raise AssertionError  # the last attempt returned or raised

    def transact(self, engine: Engine, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """Return what ``work`` returns once its transaction is durable; see ``Database``."""
        attempts = _ATTEMPTS if again else 1
        while True:
            attempts -= 1
            marker = secrets.token_hex(16)
            result: list[T] = []
            with engine.connect() as connection:
                try:
                    self._begin(connection, marker)
                    if not again:
                        # What is written comes from elsewhere meanwhile, and takes the time that it takes there.
                        _driver(connection).execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                    with connection.begin():
                        result.append(work(connection))
                    return result[0]
                except (psycopg.Error, DBAPIError):
                    if not _is_lost(connection):
                        raise
                    connection.invalidate()
                    if not result and not attempts:
                        raise
            # Lost before ``work`` was through, nothing has happened: the server ends what is not committed.
            if result and self._was_committed(engine, marker):
                return result[0]
            if not attempts:
                raise StoreError(f"{self._name}: {GONE}")

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Give a connection whose transaction may change tables, alone among all processes; commit it at the end."""
        engine = self.writing_engine()
        # Whoever else migrates is waited for, however long that takes.
        event.listen(engine, "begin", _begin_migration)
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def admit(self, connection: Connection) -> bool:
        """Tell whether the database holds a store (False: it is empty). Changes nothing.

        Raises StoreCorruptError when it holds something else, StoreError when it cannot keep what a store is given.
        """
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise StoreError(f"{self._name}: its encoding is {encoding}; create the database with ENCODING 'UTF8'")
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return False
        if not tables >= _OWN_TABLES:
            raise StoreCorruptError(f"{self._name}: {_FOREIGN}")
        return True

    def prepare(self, connection: Connection) -> None:
        """Forget processes that are long gone, and warn when the server itself does not keep its word."""
        if connection.exec_driver_sql("SHOW fsync").scalar() != "on":
            _logger.warning("%s: fsync is off, so a power cut may lose what was acknowledged", self._name)
        if inspect(connection).has_table(writers.name):
            long_ago = format_timestamp(datetime.now(timezone.utc) - _WRITERS_KEPT)
            connection.execute(delete(writers).where(writers.c.seen_at < long_ago))

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text: that may hold parts of a statement."""
        return failure_of(error, self._name)

    async def _connect_to_listen(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters)

    def _begin(self, connection: Connection, marker: str) -> None:
        """Begin a transaction that is the only writer, and leave its marker: one message to the server."""
        moment = format_timestamp(datetime.now(timezone.utc))
        # All of it is made here, of hex digits and a time; several statements in one message take no parameters.
        row = f"'{self._writer}', '{marker}', '{moment}'"
        _driver(connection).execute(_BEGIN.format(row=row).encode(), prepare=False)

    def _was_committed(self, engine: Engine, marker: str) -> bool:
        """Tell whether the transaction that left ``marker`` was committed. Raises OutcomeUnknownError.

        The lock is free only when that transaction has ended. This one writes too, so that where a standby has to
        confirm, it has confirmed both when this one is through.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                with engine.connect() as connection:
                    try:
                        driver = _driver(connection)
                        driver.execute("BEGIN; SELECT id FROM history FOR UPDATE", prepare=False)
                        found = driver.execute(
                            "UPDATE writers SET marker = marker WHERE id = %s RETURNING marker", [self._writer]
                        ).fetchone()
                        driver.commit()
                    except psycopg.Error:
                        connection.invalidate()
                        raise
                    return found is not None and found[0] == marker
            except (psycopg.Error, DBAPIError, StoreError):
                if time.monotonic() > deadline:
                    break
            time.sleep(_PAUSE)
        raise OutcomeUnknownError(
            f"{self._name}: the connection was lost at a commit, and the server does not say how it went; "
            "the log of the store tells once it can be read again"
        )


def _begin_migration(connection: Connection) -> None:
    # Without a time limit: a migration takes as long as there is data.
    driver = _driver(connection)
    driver.execute(f"{_NO_LIMITS}; BEGIN".encode(), prepare=False)
    driver.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - what ``connect`` made
    return driver


def _is_lost(connection: Connection) -> bool:
    return connection.invalidated or _driver(connection).closed
