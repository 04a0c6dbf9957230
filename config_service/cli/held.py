"""The versions and schemas of one config at a service, held against those of a file as they come one by one.

Knows the management API, and what archives and versions for later leave out on either side. What the two have alike is
told by numbers and texts; what was archived here, or is not in the file because it was archived there, hinders nothing.
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
from ..exports.lines import SchemaItem, VersionItem
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


class Place:
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


class Sequence(ABC, Generic[T]):
    """The versions or the schemas of a config here, held against those of the file as they come one by one."""

    def __init__(self, place: Place) -> None:
        self._place = place
        rows = self._rows()
        self._next = rows[-1].number + 1 if rows else 1
        self._archived = frozenset(row.number for row in rows if not row.kept)
        # What never ran or was archived makes no difference, nor does a deletion of what was.
        self._here = list(dropwhile(lambda row: row.gone, (row for row in rows if row.ran and row.kept)))
        self._numbers: list[int] = []
        self._pair = (0, 0)  # numbers of the last that was found on both sides: in the file, and here
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
        number, same = self._number_of(item), len(self._numbers)
        expected = self._pair[1] + number - self._pair[0]
        in_order = number == self._pair[0] + 1
        if expected in self._archived and (not in_order or self._is_behind(expected)):
            # What it said is not known here any more; what comes before it here is not known in the file.
            self._here[same:] = [row for row in self._here[same:] if row.number > expected]
            self._pair = (number, expected)
            return
        if not in_order:
            self._skip_to(expected, item)
        if same == len(self._here):
            self._add(item)
        elif self._text_here(same) == self._text_of(item):
            self._place.outcome.counts[self._unchanged] += 1
        else:
            self._differs = True
            return
        self._numbers.append(number)
        self._pair = (number, self._here[same].number)

    def _is_behind(self, number: int) -> bool:
        """Tell whether what comes next here has a number above ``number``, or nothing does."""
        return all(row.number > number for row in self._here[len(self._numbers) :][:1])

    def _skip_to(self, number: int, item: T) -> None:
        """Leave out what comes here before ``number``, if that is ``item``: in the file it was archived."""
        same = len(self._numbers)
        for index in range(same + 1, len(self._here)):
            if self._here[index].number == number and self._text_here(index) == self._text_of(item):
                del self._here[same:index]
                return

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


class Versions(Sequence[VersionItem]):
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


class Schemas(Sequence[SchemaItem]):
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
