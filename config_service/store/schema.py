"""The tables of an SQL store. Knows no database in particular and runs no statement.

``migrations`` creates these tables; a test compares the two. Times are RFC 3339 text in UTC, so that every database
keeps them to the microsecond and shows them readably.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
)

_NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere. SQLite's INTEGER has them, and only by that name may a column be the table's own key."""
_WORD: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""A part of a key. PostgreSQL orders it by bytes, as SQLite does, and not by a language whose rules change with the
system's library: an index in an order that is no longer the present one finds nothing."""

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

history: Final = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Text, nullable=False),
    Column("revision", _NUMBER, nullable=False),
    Column("last_token_id", _NUMBER, nullable=False),
    Column("seal_check", LargeBinary),
    Column("link", LargeBinary),
    CheckConstraint("id = 1", name="one_row"),
)
"""One row. Every change updates it first, so its lock makes commit order and revision order the same. ``link`` is
that of the last linked entry of the log."""

log: Final = Table(
    "log",
    metadata,
    Column("revision", _NUMBER, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("changed_by", _NUMBER, nullable=False),
    Column("timestamp", Text, nullable=False),
    Column("name", Text),
    Column("environment", Text),
    Column("label", Text),
    Column("version", _NUMBER),
    Column("token_id", _NUMBER, ForeignKey("tokens.id")),
    Column("audit", LargeBinary),
    Column("link", LargeBinary),
    Column("about", Text),
)
"""``about`` is the name of a savepoint, or the numbers of archived versions, separated by commas."""

versions: Final = Table(
    "versions",
    metadata,
    Column("name", _WORD, nullable=False),
    Column("environment", _WORD, nullable=False),
    Column("label", _WORD, nullable=False),
    Column("version", _NUMBER, nullable=False),
    Column("revision", _NUMBER, ForeignKey("log.revision"), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("changed_by", _NUMBER, nullable=False),
    Column("timestamp", Text, nullable=False),
    Column("source_version", _NUMBER),
    Column("valid_from", Text),
    Column("activated", _NUMBER),
    Column("activated_at", Text),
    Column("cancelled", _NUMBER),
    Column("archived", _NUMBER),
    Column("document", LargeBinary),
    PrimaryKeyConstraint("name", "environment", "label", "version"),
    CheckConstraint("version > 0", name="from_one"),
)
"""The primary key answers "which is the newest of this key" from its index alone. ``document`` stands last, where a row
that spills over pages is cut, so that everything else is read without the document. A version with ``valid_from`` is
served once it is activated; ``activated``, ``cancelled`` and ``archived`` are revisions of the entries that say so."""

drafts: Final = Table(
    "drafts",
    metadata,
    Column("name", _WORD, nullable=False),
    Column("environment", _WORD, nullable=False),
    Column("label", _WORD, nullable=False),
    Column("base", _NUMBER, nullable=False),
    Column("changed_by", _NUMBER, nullable=False),
    Column("timestamp", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    PrimaryKeyConstraint("name", "environment", "label"),
)
"""The draft of a config, if it has one. No log tells of drafts, since nobody is served one."""

savepoints: Final = Table(
    "savepoints",
    metadata,
    Column("name", _WORD, nullable=False),
    Column("environment", _WORD, nullable=False),
    Column("label", _WORD, nullable=False),
    Column("savepoint", _WORD, nullable=False),
    Column("version", _NUMBER, nullable=False),
    Column("revision", _NUMBER, ForeignKey("log.revision"), nullable=False, unique=True),
    Column("changed_by", _NUMBER, nullable=False),
    Column("timestamp", Text, nullable=False),
    PrimaryKeyConstraint("name", "environment", "label", "savepoint"),
)
"""The savepoints that there are; the log tells of all that there were."""

schemas: Final = Table(
    "schemas",
    metadata,
    Column("name", _WORD, nullable=False),
    Column("environment", _WORD, nullable=False),
    Column("label", _WORD, nullable=False),
    Column("number", _NUMBER, nullable=False),
    Column("revision", _NUMBER, ForeignKey("log.revision"), nullable=False, unique=True),
    Column("changed_by", _NUMBER, nullable=False),
    Column("timestamp", Text, nullable=False),
    Column("schema", LargeBinary),
    PrimaryKeyConstraint("name", "environment", "label", "number"),
    CheckConstraint("number > 0", name="from_one"),
)
"""Every schema of every config; ``schema`` NULL is a removal. Its log entry holds the number as its ``version``."""

data_keys: Final = Table(
    "data_keys",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=False),
    Column("use", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", Text, nullable=False),
)
"""The keys of the store, each wrapped; ``use`` is one of the values of ``KeyUse``."""

tokens: Final = Table(
    "tokens",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("keys", Text, nullable=False),
    Column("default_environment", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_by", _NUMBER, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text),
    Column("revoked_at", Text),
)
"""``keys`` is a JSON array of ``{"sealed": hex, "retires_at": time or null}``, the newest first; ``scopes`` is one of
their spellings. Ids come from ``history``: a database's own sequence may use an id again, or skip some."""
