"""Removing archived documents from the records that held them. For the writing thread.

The record of the archive comes first, so that nobody is given them from then on; what a crash or a full disk has left
of them is removed when the store is opened where that shows, and else by the next archive of the config.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...domain.keys import ConfigKey
from .protocol import Journal
from .state import State


def archived_of(state: State, key: ConfigKey, numbers: Iterable[int] | None = None) -> set[int]:
    """Return the revisions of the archived versions of ``key``; of those ``numbers`` alone, if they are given."""
    kept = state.versions.get(key, [])
    found = kept if numbers is None else [kept[number - 1] for number in numbers]
    return {info.revision for info in found if info.archived is not None}


def archived_among(state: State, revisions: set[int]) -> set[int]:
    """Return those of ``revisions`` whose version is archived."""
    kept = (info for history in state.versions.values() for info in history)
    return {info.revision for info in kept if info.archived is not None and info.revision in revisions}


def remove_documents(state: State, journal: Journal, revisions: set[int]) -> None:
    """Remove the documents of ``revisions``, as far as they are there."""
    for number in sorted({state.record_of(revision) for revision in revisions}):
        while True:
            (record,) = journal.read([number])
            kept = {revision: document for revision, document in record.documents.items() if revision not in revisions}
            if len(kept) == len(record.documents) or journal.amend(replace(record, documents=kept)):
                break
