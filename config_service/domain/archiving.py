"""Which documents of a config may be archived. Pure: the one rule that every store and every question goes by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from .records import Draft, Savepoint, VersionInfo


def archivable(
    history: Sequence[VersionInfo], savepoints: Iterable[Savepoint], draft: Draft | None, before: datetime
) -> list[VersionInfo]:
    """Return the versions of ``history``, oldest first and complete, that were published before ``before`` and may go.

    Never the newest one, the one that runs, one that waits for its moment, one that a savepoint names, and the one that
    the draft was made on. Tombstones have no document, and what is archived has none any more.
    """
    running = max((one.version for one in history if one.served), default=0)
    kept = {running, len(history), *(one.version for one in savepoints)}
    if draft is not None:
        kept.add(draft.base)
    return [
        one
        for one in history
        if one.timestamp < before and one.version not in kept and not one.deleted and one.archived is None
    ]
