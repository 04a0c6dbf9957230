"""Who hears what: every open stream with the configs it is about, what it was sent of each, and what runs now.

Knows subscriptions and what is served. Knows nothing of HTTP. Nothing is kept for this but, for all streams that hear
the same, the newest change of each config and the latest few: what a stream was sent follows from them, from the
revision at which it was opened, and from how many changes still wait for its reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ..domain.documents import Document
from ..domain.keys import ConfigKey
from .hub import Hub
from .running import Running
from .subscription import Beat, NamedInterest, Subscription, Told

MAX_ROWS: Final = 5_000
"""Configs, and streams, that are told of at a time: telling takes time in which nothing else is answered."""


@dataclass(frozen=True, slots=True)
class WatchedConfig:
    """One config that a stream is about.

    ``sent``: the newest state that was handed to its connection, None when that is nothing, or not known. A base stream
    carries changes only, so until the first one it was sent nothing. ``behind``: something newer waits.
    """

    key: ConfigKey
    running: Document | None
    sent: Told | None
    behind: bool


@dataclass(frozen=True, slots=True)
class Watcher:
    """One open stream."""

    token_id: int
    address: str
    since: datetime
    kind: Beat
    queued: int
    configs: tuple[WatchedConfig, ...]

    @property
    def behind(self) -> bool:
        """Whether anything waits to be sent."""
        return self.queued > 0 or any(config.behind for config in self.configs)


@dataclass(slots=True)
class Watching:
    """The streams that were asked for, by token, the oldest first; ``whole``: none was left out."""

    watchers: list[Watcher] = field(default_factory=list)
    whole: bool = True


def watching(hub: Hub, running: Running, name: str | None, environment: str | None) -> Watching:
    """Return every stream about a config with that name, in that environment (None: any); then with those only."""
    told, rows = Watching(), 0
    about: dict[int, list[tuple[ConfigKey, Document | None]]] = {}
    for stream in hub:
        configs = about.get(id(stream.audience))
        if configs is None:
            configs = about[id(stream.audience)] = [
                (key, document)
                for key, document in _interesting(stream, running)
                if name in {None, key.name} and environment in {None, key.environment}
            ]
        if not configs and (name is not None or environment is not None):
            continue
        rows += 1 + len(configs)
        if rows > MAX_ROWS:
            told.whole = False
            break
        told.watchers.append(_described(stream, configs))
    told.watchers.sort(key=lambda watcher: (watcher.token_id, watcher.since))
    return told


def _interesting(stream: Subscription, running: Running) -> Iterator[tuple[ConfigKey, Document | None]]:
    interest = stream.interest
    if isinstance(interest, NamedInterest):
        for document in running.named(interest.name):
            if interest.covers(document.key):
                yield document.key, document
        return
    for place in sorted(place for place in interest.places() if isinstance(place, ConfigKey)):
        yield place, running.get(place)


def _described(stream: Subscription, configs: Iterable[tuple[ConfigKey, Document | None]]) -> Watcher:
    kind, since = stream.interest.beat, stream.opened.revision
    waiting = _waiting(stream)
    rows = []
    for key, document in configs:
        now = None if document is None else Told(document.version, document.revision)
        if waiting is None:
            # The states, or missed changes, that the stream begins with are on their way.
            rows.append(WatchedConfig(key, document, None, now is not None))
        elif key in waiting:
            rows.append(WatchedConfig(key, document, _sent(waiting[key], kind, since), behind=True))
        else:
            last = stream.audience.told.get(key)
            sent = _sent(now if now is not None and now.revision <= since else last, kind, since)
            behind = now is not None and now.revision > since and (sent is None or sent.revision < now.revision)
            rows.append(WatchedConfig(key, document, sent, behind))
    return Watcher(
        token_id=stream.interest.token.id,
        address=stream.opened.address,
        since=stream.opened.at,
        kind=kind,
        queued=stream.queued,
        configs=tuple(rows),
    )


def _sent(newest: Told | None, kind: Beat, since: int) -> Told | None:
    """Return ``newest`` if it was sent: what was there when a base stream was opened, its client has fetched itself."""
    if newest is None or (kind is Beat.BASE and newest.revision <= since):
        return None
    return newest


def _waiting(stream: Subscription) -> dict[ConfigKey, Told | None] | None:
    """Return the configs with changes that wait for the reader, each with what it was sent before; None: all wait."""
    count = stream.queued_changes
    if count is None:
        return None
    latest = stream.audience.latest
    waiting: dict[ConfigKey, Told | None] = {}
    if count:
        for telling in list(latest)[-count:]:
            waiting.setdefault(telling.key, telling.before)
    return waiting
