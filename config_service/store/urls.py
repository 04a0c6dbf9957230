"""Which store a URL names. The one place that knows every kind of store, and imports the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..domain.errors import StoreError
from .protocol import ConfigStore

FORMS: Final = (
    "sqlite:///relative/path.db",
    "sqlite:////absolute/path.db",
    "postgresql://user:password@host:5432/database",
    "mongodb://user:password@host:27017/database",
    "file:///absolute/directory",
    "file:relative/directory",
)
"""What a store URL may look like, for messages and docs."""


def create_store(url: str, *, create: bool = True) -> ConfigStore:
    """Return the store that ``url`` names, not yet open.

    Without ``create`` opening raises StoreMissingError where none is, and StoreError where one would have to be
    migrated; nothing is made or migrated then.

    Raises StoreError when it names none, or a library that this kind of store needs is not installed. The message does
    not repeat the URL, which may hold a password.
    """
    scheme, found, _ = url.partition("://" if not url.startswith("file:") else ":")
    kind = _KINDS.get(scheme)
    if kind is None or not found:
        raise StoreError(f"unsupported store URL; use one of {', '.join(FORMS)}")
    return kind(url, create)


def _sql(url: str, create: bool) -> ConfigStore:
    from .sql import SqlStore  # noqa: PLC0415 - a store of another kind needs no SQL installed

    return SqlStore(url, create=create)


def _files(url: str, create: bool) -> ConfigStore:
    from .journal.files import FilesJournal  # noqa: PLC0415
    from .journal.store import JournalStore  # noqa: PLC0415

    return JournalStore(FilesJournal.from_url(url, create=create))


def _mongo(url: str, create: bool) -> ConfigStore:
    from .journal.store import JournalStore  # noqa: PLC0415

    try:
        from .journal.mongo import MongoJournal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"pymongo", "bson"}:
            raise
    else:
        return JournalStore(MongoJournal(url, create=create))
    raise StoreError("a store in MongoDB needs PyMongo: pip install 'python-config-client[server,mongodb]'")


_KINDS: Final[Mapping[str, Callable[[str, bool], ConfigStore]]] = {
    "sqlite": _sql,
    "postgresql": _sql,
    "postgres": _sql,
    "mongodb": _mongo,
    "mongodb+srv": _mongo,
    "file": _files,
}
"""By the scheme of the URL."""
