"""Publishing what an export says, item by item, such that doing it again changes nothing.

Knows the management API. A config's versions in the file are held against those of the service, from the first one on:
as long as they are the same nothing is done; where the service has no more, the rest is published; where the two differ
the config is left as it is, unless it is to be replaced. Schemas go by the same rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import dropwhile
from typing import ClassVar, Final, Generic, TypeVar

from config_client.protocol import formatted_path

from ..domain.keys import ConfigKey
from ..exports.lines import DraftItem, Item, SchemaItem, VersionItem
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .wire import config_route, rows_of

_NEVER_RAN: Final = frozenset({"scheduled", "cancelled"})
"""States of versions that are in no export."""
_COUNTED: Final = (
    "configs",
    "versions published",
    "versions unchanged",
    "schemas set",
    "schemas unchanged",
    "drafts set",
    "drafts unchanged",
)


T = TypeVar("T", VersionItem, SchemaItem)


@dataclass(frozen=True, slots=True)
class _Row:
    """A version or schema here: whether it is a tombstone or a removal, whether it ever ran, and is not archived."""

    number: int
    gone: bool
    ran: bool = True
    kept: bool = True


@dataclass
class Outcome:
    """What an import did, or would do."""

    dry_run: bool
    counts: Counter[str] = field(default_factory=Counter)
    left_alone: list[str] = field(default_factory=list)

    def rows(self) -> list[list[str]]:
        """Return what is told as a table."""
        counted = [[name, str(self.counts[name])] for name in _COUNTED]
        return [*counted, ["configs left as they are", str(len(self.left_alone))]]

    def as_json(self) -> dict[str, object]:
        """Return what is told as JSON."""
        counts = {name.replace(" ", "_"): self.counts[name] for name in _COUNTED}
        return {"dry_run": self.dry_run, **counts, "left_alone": self.left_alone}


class Import:
    """One import under way. The items of one config come together: versions, schemas, draft."""

    def __init__(self, service: ManageApi, *, dry_run: bool, replace: bool) -> None:
        self._service = service
        self._replace = replace
        self._outcome = Outcome(dry_run)
        self._config: _Config | None = None

    def take(self, item: Item) -> None:
        """Publish ``item`` where it is missing.

        Raises CommandError, which names the config, or InvalidRequestError for what is no name; nothing is undone.
        """
        key = ConfigKey.of(item.name, item.environment, item.label)
        if self._config is None or self._config.key != key:
            self._end_config()
            self._config = _Config(self._service, key, self._outcome)
        self._config.take(item)

    def finish(self) -> Outcome:
        """End the last config, and return what was done. Raises CommandError."""
        self._end_config()
        return self._outcome

    def _end_config(self) -> None:
        config, self._config = self._config, None
        if config is not None and config.differs:
            if self._replace:
                config.replace()
            else:
                self._outcome.left_alone.append(str(config.key))


class _Config:
    """One config of the file, and what the service has of it."""

    def __init__(self, service: ManageApi, key: ConfigKey, outcome: Outcome) -> None:
        outcome.counts["configs"] += 1
        self.key = key
        self._place = _Place(service, key, outcome)
        self._versions: _Sequence[VersionItem] | None = None
        self._schemas: _Sequence[SchemaItem] | None = None
        self._draft_differs = False

    @property
    def differs(self) -> bool:
        """Whether the service has something else than the file says."""
        sequences = (self._versions, self._schemas)
        return any(sequence is not None and sequence.differs for sequence in sequences) or self._draft_differs

    def take(self, item: Item) -> None:
        """Publish ``item`` where it is missing. Raises CommandError."""
        match item:
            case VersionItem():
                self._versions = self._versions or _Versions(self._place)
                self._versions.take(item)
            case SchemaItem():
                self._schemas = self._schemas or _Schemas(self._place)
                self._schemas.take(item)
            case DraftItem():
                self._take_draft(item)

    def replace(self) -> None:
        """Publish the newest of the file over what is here. Raises CommandError."""
        for sequence in (self._versions, self._schemas):
            if sequence is not None and sequence.differs:
                sequence.replace()

    def _take_draft(self, item: DraftItem) -> None:
        here = self._place.fetch("draft/document")
        if here is not None:
            self._draft_differs = here != item.document
            self._place.outcome.counts["drafts unchanged"] += not self._draft_differs
            return
        base = 0 if self._versions is None else self._versions.here(item.base)
        query = {} if base is None else {"base": str(base)}
        self._place.change("PUT", "draft", body=item.document, query=query)
        self._place.outcome.counts["drafts set"] += 1


class _Place:
    """One config at the service."""

    def __init__(self, service: ManageApi, key: ConfigKey, outcome: Outcome) -> None:
        self.outcome: Final = outcome
        self._service = service
        self._key = key
        self._query: Mapping[str, str | None] = {"environment": key.environment, "label": key.label}

    def rows(self, action: str, field: str) -> list[Mapping[str, object]]:
        """Return the rows of a history, oldest first; none where nothing ever was. Raises CommandError."""
        try:
            answer = self._service.call("GET", config_route(self._key.name, action), query=self._query)
        except CommandError as error:
            if error.code is ExitCode.NOT_FOUND:
                return []
            failure = self._told(error)
        else:
            return rows_of(answer, field)[::-1]
        raise failure

    def version(self, number: int) -> str | None:
        """Return the document of a version. Raises CommandError."""
        query = {**self._query, "format": "json", "version": str(number)}
        return self._text(formatted_path(self._key.name), query)

    def fetch(self, action: str, query: Mapping[str, str | None] | None = None) -> str | None:
        """Return a document of the config; None where there is none. Raises CommandError."""
        return self._text(config_route(self._key.name, action), {**self._query, **(query or {})})

    def change(
        self,
        method: str,
        action: str = "",
        *,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str | None] | None = None,
    ) -> None:
        """Change something, unless this is a dry run. Raises CommandError."""
        if self.outcome.dry_run:
            return
        try:
            self._service.call(
                method,
                config_route(self._key.name, action),
                query={**self._query, **(query or {})},
                headers=headers,
                body=None if body is None else body.encode(),
            )
        except CommandError as error:
            failure = self._told(error)
        else:
            return
        raise failure

    def _text(self, path: str, query: Mapping[str, str | None]) -> str | None:
        try:
            return self._service.fetch("GET", path, query=query).decode("utf-8", "replace")
        except CommandError as error:
            if error.code is ExitCode.NOT_FOUND:
                return None
            failure = self._told(error)
        raise failure

    def _told(self, error: CommandError) -> CommandError:
        return CommandError(
            f"{self._key}: {error}; what came before is done: run the same import again to go on", error.code
        )


class _Sequence(ABC, Generic[T]):
    """The versions or the schemas of a config here, held against those of the file as they come one by one."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        rows = self._rows()
        self._next = rows[-1].number + 1 if rows else 1
        self._archived = max((row.number for row in rows if not row.kept), default=0)
        # What never ran or was archived makes no difference, nor does a deletion of what was.
        self._here = list(dropwhile(lambda row: row.gone, (row for row in rows if row.ran and row.kept)))
        self._numbers: list[int] = []
        self._newest: T | None = None
        self._differs = False

    @property
    def differs(self) -> bool:
        """Whether the service has something else than what came of the file so far."""
        return self._differs or (self._newest is not None and bool(self._here) and not self._numbers)

    def take(self, item: T) -> None:
        """Add ``item`` where the service has no more than came before it; else see whether it is the same."""
        if not self._numbers and self._text_of(item) is None:
            return  # see above
        self._newest = item
        if self._differs:
            return
        if not self._numbers and not self._begins_at(item):
            return
        same = len(self._numbers)
        if same == len(self._here):
            self._add(item)
        elif self._text_here(same) == self._text_of(item):
            self._place.outcome.counts[self._unchanged] += 1
        else:
            self._differs = True
            return
        self._numbers.append(self._number_of(item))

    def _begins_at(self, item: T) -> bool:
        """Find where the two begin alike if one was archived further than the other; False: behind ``item``."""
        number = self._number_of(item)
        if self._here and number <= self._archived:
            return False
        for index, row in enumerate(self._here[1:], start=1):
            if row.number == number and self._text_here(0) != self._text_of(item) == self._text_here(index):
                del self._here[:index]
                break
        return True

    def replace(self) -> None:
        """Add the newest of the file, unless it is what the service has already."""
        here = self._text_here(len(self._here) - 1) if self._here else None
        if self._newest is not None and here != self._text_of(self._newest):
            self._add(self._newest)

    def here(self, number: int) -> int | None:
        """Return the number here of what has ``number`` in the file, or of the last one before it.

        0 when there is none before it; None when that cannot be told, since the two differ.
        """
        index = bisect_right(self._numbers, number)
        if self._differs:
            return None
        return self._here[index - 1].number if index else 0

    @property
    def _exists(self) -> bool:
        """Whether the newest here is no tombstone and no removal."""
        return bool(self._here) and not self._here[-1].gone

    def _text_here(self, index: int) -> str | None:
        row = self._here[index]
        return None if row.gone else self._fetch(row.number)

    def _added(self, *, gone: bool) -> None:
        self._here.append(_Row(self._next, gone))
        self._next += 1

    _unchanged: ClassVar[str]

    @abstractmethod
    def _rows(self) -> list[_Row]: ...

    @abstractmethod
    def _fetch(self, number: int) -> str | None: ...

    @abstractmethod
    def _number_of(self, item: T) -> int: ...

    @abstractmethod
    def _text_of(self, item: T) -> str | None: ...

    @abstractmethod
    def _add(self, item: T) -> None: ...


class _Versions(_Sequence[VersionItem]):
    _unchanged = "versions unchanged"

    def _rows(self) -> list[_Row]:
        return [_row(row, "version", "deleted") for row in self._place.rows("history", "versions")]

    def _fetch(self, number: int) -> str | None:
        return self._place.version(number)

    def _number_of(self, item: VersionItem) -> int:
        return item.version

    def _text_of(self, item: VersionItem) -> str | None:
        return item.document

    def _add(self, item: VersionItem) -> None:
        gone = item.document is None
        # On the version that was seen here: what somebody publishes meanwhile is not overwritten.
        condition = {"If-Match": f'"{self._here[-1].number}"'} if self._exists else {"If-None-Match": "*"}
        self._place.change("DELETE" if gone else "PUT", body=item.document, headers=condition)
        self._place.outcome.counts["versions published"] += 1
        self._added(gone=gone)


class _Schemas(_Sequence[SchemaItem]):
    _unchanged = "schemas unchanged"

    def _rows(self) -> list[_Row]:
        return [_row(row, "number", "removed") for row in self._place.rows("schema/history", "schemas")]

    def _fetch(self, number: int) -> str | None:
        return self._place.fetch("schema/document", {"version": str(number)})

    def _number_of(self, item: SchemaItem) -> int:
        return item.number

    def _text_of(self, item: SchemaItem) -> str | None:
        return item.schema

    def _add(self, item: SchemaItem) -> None:
        gone = item.schema is None
        self._place.change("DELETE" if gone else "PUT", "schema", body=item.schema)
        self._place.outcome.counts["schemas set"] += 1
        self._added(gone=gone)


def _row(row: Mapping[str, object], number: str, gone: str) -> _Row:
    value = row.get(number)
    if not isinstance(value, int):
        raise CommandError(
            f"the answer has no number {number!r}; is it the service that answers?", ExitCode.UNAVAILABLE
        )
    archived = row.get("archived")
    return _Row(value, row.get(gone) is True, row.get("state") not in _NEVER_RAN, archived is None or archived is False)
