"""Which versions an import publishes, decided against a service that is a list of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from config_service.cli.exits import CommandError, ExitCode
from config_service.cli.held import Outcome
from config_service.cli.importing import Import
from config_service.exports.lines import VersionItem

GONE, ARCHIVED, LATER = None, "archived", "later"


class Service:
    """The management API of one config: what its versions say, the first one first."""

    def __init__(self, *versions: str | None) -> None:
        self.versions = list(versions)
        self.published: list[str | None] = []

    def call(self, method: str, path: str, *, body: bytes | None = None, **_: Any) -> dict[str, object]:
        if method == "GET":
            if not self.versions or "schema" in path:
                raise CommandError("nothing", ExitCode.NOT_FOUND)
            return {"versions": [self._row(number, text) for number, text in enumerate(self.versions, start=1)][::-1]}
        self.versions.append(None if body is None else body.decode())
        self.published.append(self.versions[-1])
        return {}

    def fetch(self, _method: str, _path: str, *, query: Mapping[str, str | None]) -> bytes:
        text = self.versions[int(query["version"] or 0) - 1]
        assert text not in {GONE, ARCHIVED, LATER}
        return str(text).encode()

    @staticmethod
    def _row(number: int, text: str | None) -> dict[str, object]:
        state = "cancelled" if text == LATER else "saved"
        return {"version": number, "deleted": text is GONE, "state": state, "archived": text == ARCHIVED}


def imported(service: Any, *versions: str | None, first: int = 1, replace: bool = False) -> Outcome:
    """Return what an import of ``versions`` comes to, the first of which has the number ``first``."""
    work = Import(service, dry_run=False, replace=replace)
    for number, text in enumerate(versions, start=first):
        if text in {ARCHIVED, LATER}:
            continue  # an export leaves them out
        work.take(VersionItem("orders", "prod", "main", number, "published", 1, "", text))
    return work.finish()


@pytest.mark.parametrize(
    ("here", "file", "first", "published"),
    [
        ((), ("a", "b"), 1, ["a", "b"]),
        (("a",), ("a", "b", GONE, "c"), 1, ["b", GONE, "c"]),
        (("a", "b", "c"), ("a", "b"), 1, []),
        (("a", "b"), ("a", "b"), 1, []),
        (("a", "a2", "a"), ("a", "a2", "a", "a2"), 1, ["a2"]),
        # what never ran, here
        (("a", LATER, "b"), ("a", "b", "c"), 1, ["c"]),
        ((LATER,), ("a",), 1, ["a"]),
        # archived here, and not in the file
        ((ARCHIVED, ARCHIVED, "c"), ("a", "b", "c", "d"), 1, ["d"]),
        ((ARCHIVED, GONE, "c"), ("a", GONE, "c", "d"), 1, ["d"]),
        ((ARCHIVED, ARCHIVED, GONE), ("a", "b", GONE), 1, []),
        ((ARCHIVED, GONE), ("a", GONE, "c"), 1, ["c"]),
        # archived in the file, and not here
        (("a", "b", "c"), ("c", "d"), 3, ["d"]),
        (("a", "b", "c"), ("b",), 2, []),
        # archived here and there in the middle: a draft is based on what was kept, or a savepoint stands for it
        (("a", "b", "c", "a"), (ARCHIVED, "b", ARCHIVED, "a"), 1, []),
        (("a", "b", "c", "a"), (ARCHIVED, "b", ARCHIVED, "a", "d"), 1, ["d"]),
        ((ARCHIVED, "b", ARCHIVED, "a"), ("a", "b", "c", "a"), 1, []),
        ((ARCHIVED, "b", ARCHIVED, "a"), ("a", "b", "c", "a", "d"), 1, ["d"]),
        ((ARCHIVED, ARCHIVED, ARCHIVED, "a"), ("a", "b", "c", "a"), 1, []),
        (("a", ARCHIVED, "c"), (ARCHIVED, "b", "c", "d"), 1, ["d"]),
        # what never ran there has left no number here
        (("a", "b", "c"), ("a", LATER, "b", "c", "d"), 1, ["d"]),
        (("a", "b", "a"), ("a", LATER, "b", "a", "b"), 1, ["b"]),
        # a file whose first versions were archived, into a service that has nothing
        ((), (GONE, "c", "d"), 2, ["c", "d"]),
        (("c", "d"), (GONE, "c", "d", "e"), 2, ["e"]),
    ],
)
def test_what_is_missing_is_published_and_nothing_twice(
    here: tuple[str | None, ...], file: tuple[str | None, ...], first: int, published: list[str | None]
) -> None:
    """And the same import again publishes nothing."""
    service = Service(*here)
    outcome = imported(service, *file, first=first)
    assert (service.published, outcome.left_alone) == (published, [])
    service.published.clear()
    assert imported(service, *file, first=first).left_alone == []
    assert service.published == []


@pytest.mark.parametrize(
    ("here", "file"),
    [
        (("x",), ("a", "b")),
        (("a", "x"), ("a", "b")),
        (("a", GONE), ("a", "b")),
        ((ARCHIVED, ARCHIVED, "x"), ("a", "b")),
        ((ARCHIVED, ARCHIVED, "x"), ("a", "b", "c")),
        (("a", "x", "c"), ("a", "b", "c", "d")),
    ],
)
def test_what_differs_is_left_alone_or_replaced_by_the_newest(
    here: tuple[str | None, ...], file: tuple[str | None, ...]
) -> None:
    """Once: the newest of the file is then what runs."""
    service = Service(*here)
    assert imported(service, *file).left_alone == ["orders (prod, main)"]
    assert service.published == []
    assert imported(service, *file, replace=True).left_alone == []
    assert service.versions[-1] == file[-1]
    service.published.clear()
    imported(service, *file, replace=True)
    assert service.published == []


def test_a_dry_run_counts_and_publishes_nothing() -> None:
    """What it tells is what the import then does."""
    service: Any = Service("a")
    work = Import(service, dry_run=True, replace=False)
    for number, text in enumerate(("a", "b", "c"), start=1):
        work.take(VersionItem("orders", "prod", "main", number, "published", 1, "", text))
    told = json.loads(json.dumps(work.finish().as_json()))
    assert service.published == []
    assert (told["versions_published"], told["versions_unchanged"], told["dry_run"]) == (2, 1, True)
