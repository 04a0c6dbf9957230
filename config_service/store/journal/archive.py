"""Removing archived documents from the records that held them. For the writing thread."""

from __future__ import annotations

from dataclasses import replace

from ...domain.keys import ConfigKey
from .protocol import Journal
from .state import State


def remove_documents(state: State, journal: Journal, key: ConfigKey) -> None:
    """Remove what is left of documents of ``key`` that are archived, also by an archive that was cut short before."""
    revisions = {info.revision for info in state.versions.get(key, ()) if info.archived is not None}
    for number in sorted({state.record_of(revision) for revision in revisions}):
        (record,) = journal.read([number])
        kept = {revision: document for revision, document in record.documents.items() if revision not in revisions}
        if len(kept) < len(record.documents):
            journal.amend(replace(record, documents=kept))
