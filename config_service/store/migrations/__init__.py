"""The schema's history, run by Alembic when a store opens. Knows no particular database and opens no connection.

Runs inside the caller's transaction: a store has either the old schema or the new one, whatever interrupts the change.
To write a migration, add a module to ``versions`` (``script.py.mako`` is its form) and change ``schema`` alike.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from ...domain.errors import StoreError
from ..schema import metadata

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE: Final = "alembic_version"

_turn: Final = threading.Lock()
"""Alembic hands the running migration to its scripts through module globals: one at a time in a process."""


def configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for these migrations on ``connection``."""
    from alembic.config import Config  # noqa: PLC0415 - most starts migrate nothing, and it takes a tenth of a start

    config = Config(attributes={"connection": connection, "target_metadata": metadata})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def is_current(connection: Connection) -> bool:
    """Tell whether the schema is the newest one. Changes nothing.

    Raises StoreError when the schema is one that this code does not know: a newer service has migrated the store.
    """
    known = revisions()
    found: set[str] = set()
    if inspect(connection).has_table(VERSION_TABLE):
        found = {row[0] for row in connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}"))}  # noqa: S608
    if not found.issubset(known):
        raise StoreError(
            "the store was migrated by a newer version of the service; upgrade this one to at least that version"
        )
    return found == {known[-1]}


def revisions() -> list[str]:
    """Return every revision of the schema, oldest first: the names of the migrations begin with them."""
    return sorted(path.name.partition("_")[0] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to ``revision`` within the transaction of ``connection``."""
    from alembic import command  # noqa: PLC0415

    with _turn:
        command.upgrade(configuration(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Bring the schema down to ``revision`` (``base``: no schema and no data) within ``connection``'s transaction."""
    from alembic import command  # noqa: PLC0415

    with _turn:
        command.downgrade(configuration(connection), revision)
