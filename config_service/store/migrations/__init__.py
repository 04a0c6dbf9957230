"""The schema's history, run by Alembic when a store opens. Knows no particular database and opens no connection.

Runs inside the caller's transaction: a store has either the old schema or the new one, whatever interrupts the change.
To write a migration, add a module to ``versions`` (``script.py.mako`` is its form) and change ``schema`` alike.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ...domain.errors import StoreError
from ..schema import metadata

VERSION_TABLE: Final = "alembic_version"

_turn: Final = threading.Lock()
"""Alembic hands the running migration to its scripts through module globals: one at a time in a process."""


def configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for these migrations on ``connection``."""
    config = Config(attributes={"connection": connection, "target_metadata": metadata})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def is_current(connection: Connection) -> bool:
    """Tell whether the schema is the newest one. Changes nothing.

    Raises StoreError when the schema is one that this code does not know: a newer service has migrated the store.
    """
    scripts = ScriptDirectory.from_config(configuration(connection))
    heads = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if not known.issuperset(heads):
        raise StoreError(
            "the store was migrated by a newer version of the service; upgrade this one to at least that version"
        )
    return set(heads) == set(scripts.get_heads())


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to ``revision`` within the transaction of ``connection``."""
    with _turn:
        command.upgrade(configuration(connection), revision)


def downgrade(connection: Connection, revision: str) -> None:
    """Bring the schema down to ``revision`` (``base``: no schema and no data) within ``connection``'s transaction."""
    with _turn:
        command.downgrade(configuration(connection), revision)
