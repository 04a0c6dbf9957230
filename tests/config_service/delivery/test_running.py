"""What is served now."""

from __future__ import annotations

from datetime import datetime, timezone

from config_service.delivery.running import Running
from config_service.domain.documents import Document
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind


def document(name: str, version: int, environment: str = "default", content: bytes | None = b"{}") -> Document:
    kind = ChangeKind.DELETED if content is None else ChangeKind.PUBLISHED
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return Document(ConfigKey(name, environment), version, version + 10, kind, 1, moment, content)


def test_the_newest_version_of_every_key_is_served() -> None:
    """By key, and by name over all its environments."""
    running = Running()
    first, second, other = document("a", 1), document("a", 2), document("a", 1, "prod")
    for one in (first, second, other):
        running.put(one)
    assert running.get(ConfigKey("a")) is second
    assert set(running.named("a")) == {second, other}
    assert running.get(ConfigKey("b")) is None
    assert running.named("b") == ()


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """Whichever way changes arrive, a config never goes backwards."""
    running = Running()
    running.put(document("a", 3))
    running.put(document("a", 2))
    newest = running.get(ConfigKey("a"))
    assert newest is not None
    assert newest.version == 3


def test_deleted_configs_stay_known() -> None:
    """A tombstone is the newest version of its key."""
    running = Running()
    running.put(document("b", 1, content=None))
    running.put(document("a", 1))
    assert running.names() == ["a", "b"]
    assert [one.key.name for one in running] == ["a", "b"]
