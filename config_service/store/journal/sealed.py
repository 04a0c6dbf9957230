"""Every sealed value of a journal, whatever it is of: told in order, counted, and replaced by the same sealed anew.

Documents and schemas are found by their records, drafts are cells, and the keys of a token stand in the record that
told of it last. ``page`` reads a state that stands still; the others are for the writing thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final, TypeAlias

from ...domain.keys import ConfigKey
from ...domain.sealing import SEALED_KINDS, Resealed, SealedKind, SealedPlace, data_key_id
from . import drafts
from .protocol import Cell, Journal
from .state import State

Found: TypeAlias = tuple[SealedPlace, bytes | int]
"""Where a sealed value is, and the value; or the revision whose document it is."""

_FIRST: Final = ConfigKey("", "", "")


def page(state: State, standing: Sequence[Cell], after: SealedPlace | None, limit: int) -> list[Found]:
    """Return about ``limit`` sealed values that come after ``after`` (None: from the first), in a lasting order.

    ``standing`` are the drafts that there are. The keys of one token are told together.
    """
    kinds = SEALED_KINDS[0 if after is None else SEALED_KINDS.index(after.kind) :]
    found: list[Found] = []
    for one in chain.from_iterable(_of_kind(state, standing, kind, after) for kind in kinds):
        if len(found) >= limit and one[0] != found[-1][0]:
            break
        found.append(one)
    return found


def counts(state: State, journal: Journal, standing: Sequence[Cell]) -> dict[int, int]:
    """Return how many sealed values there are under each data key. Reads every record."""
    found = Counter(data_key_id(cell.value) for cell in standing)
    found.update(data_key_id(key.sealed) for token in state.tokens for key in token.keys)
    # Of a document that is archived something may be left for a while; it is none of the values of the store.
    archived = {one.revision for kept in state.versions.values() for one in kept if one.archived is not None}
    for record in journal.scan(0, documents=True):
        found.update(data_key_id(value) for revision, value in record.documents.items() if revision not in archived)
    return dict(found)


def reseal(state: State, journal: Journal, changes: Sequence[Resealed]) -> int:
    """Replace each value that is still as it was; return how many were. Each is replaced wholly or not at all."""
    replaced = 0
    in_records: dict[int, list[tuple[int, Resealed]]] = {}
    for change in changes:
        if change.place.kind is SealedKind.DRAFT:
            replaced += _reseal_draft(state, journal, change)
        elif change.place.kind is SealedKind.TOKEN_KEY:
            replaced += _reseal_token_key(state, journal, change)
        elif (revision := _revision(state, change.place)) is not None:
            in_records.setdefault(state.record_of(revision), []).append((revision, change))
    return replaced + sum(_reseal_documents(journal, number, found) for number, found in in_records.items())


def _of_kind(state: State, standing: Sequence[Cell], kind: SealedKind, after: SealedPlace | None) -> Iterator[Found]:
    if after is None or after.kind is not kind:
        after = None
    key, number = (_FIRST, -1) if after is None else (after.key or _FIRST, after.number)
    if kind is SealedKind.TOKEN_KEY:
        for token in state.tokens[max(0, number) :]:
            for held in token.keys:
                yield SealedPlace(kind, None, token.id), held.sealed
    elif kind is SealedKind.DRAFT:
        for draft in sorted(map(drafts.read, standing), key=lambda draft: draft.key):
            if (draft.key, draft.base) > (key, number):
                yield SealedPlace(kind, draft.key, draft.base), draft.document
    else:
        is_schema = kind is SealedKind.SCHEMA
        for one in state.keys_of_schemas(key) if is_schema else state.keys_of_versions(key):
            rest = slice(max(0, number) if one == key else 0, None)
            if is_schema:
                for schema in state.schemas[one][rest]:
                    if not schema.removed:
                        yield SealedPlace(kind, one, schema.number), schema.revision
            else:
                for version in state.versions[one][rest]:
                    if not version.deleted and version.archived is None:
                        yield SealedPlace(kind, one, version.version), version.revision


def _revision(state: State, place: SealedPlace) -> int | None:
    """Return the revision whose document is at ``place``; None: nothing is there."""
    key = place.key or _FIRST
    kept = state.schemas.get(key, []) if place.kind is SealedKind.SCHEMA else state.versions.get(key, [])
    return kept[place.number - 1].revision if 0 < place.number <= len(kept) else None


def _reseal_documents(journal: Journal, number: int, changes: Sequence[tuple[int, Resealed]]) -> int:
    """Replace documents of one record, beginning again when somebody else has amended it meanwhile."""
    while True:
        (record,) = journal.read([number])
        due = {
            revision: change.after for revision, change in changes if record.documents.get(revision) == change.before
        }
        if not due or journal.amend(replace(record, documents={**record.documents, **due})):
            return len(due)


def _reseal_draft(state: State, journal: Journal, change: Resealed) -> bool:
    if change.place.key is None:
        return False
    name = drafts.cell_name(change.place.key)
    cell = drafts.standing(state, change.place.key, journal.cell(name))
    if cell is None or cell.value != change.before or drafts.read(cell).base != change.place.number:
        return False
    return journal.swap(name, change.before, replace(cell, value=change.after))


def _reseal_token_key(state: State, journal: Journal, change: Resealed) -> bool:
    token = state.token(change.place.number)
    if token is None:
        return False
    keys = tuple(replace(key, sealed=change.after) if key.sealed == change.before else key for key in token.keys)
    if keys == token.keys:
        return False
    (record,) = journal.read([state.token_record(token.id)])
    anew = replace(token, keys=keys)
    # Amended by somebody else: then what is known of the token is old, and its keys are left for the next time.
    tokens = tuple(anew if one.id == token.id else one for one in record.tokens)
    if not journal.amend(replace(record, tokens=tokens)):
        return False
    state.tokens[token.id - 1] = anew
    return True
