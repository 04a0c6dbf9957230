"""The state-first watch: what is stated when a stream opens, and how a change is told on it, with its payload inside.

Knows documents, tokens' keys and frames. Knows nothing of HTTP or stores.

A payload is sealed once per key and revision, and each of the two events that can carry it is encoded once, for all
streams. The key is chosen when the frame is made, from the token as it is then: a rotation reaches open streams.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from config_client.protocol import (
    CHANGED_EVENT,
    DEFAULT_LABEL,
    STATE_EVENT,
    ConfigState,
    Held,
    Position,
    Standing,
)

from ..domain.documents import Document
from ..domain.keys import ConfigKey
from ..domain.scopes import Right
from ..security.tokens import Token, TokenKey, TokenRegistry
from .frames import StateTemplate, state_frame, synced_frame
from .replay import ChangeFrame
from .running import Running
from .sealed import Payloads
from .subscription import Beat

KeyIds = frozenset[str] | None
"""The ids of the keys that a client holds; None when it does not say."""


class StateFrames:
    """Makes the frames of state-first streams."""

    def __init__(self, *, payloads: Payloads, registry: TokenRegistry, clock: Callable[[], datetime]) -> None:
        self._payloads = payloads
        self._registry = registry
        self._clock = clock
        self._latest: tuple[tuple[str, int], StateTemplate] | None = None

    def key(self, token_id: int, held: KeyIds) -> TokenKey:
        """Return the key to seal under for a client that holds ``held``, of the token as it is now.

        Raises UnauthenticatedError when the token is revoked.
        """
        token = self._registry.get(token_id)
        if token is None:
            raise LookupError(f"there is no token {token_id}")
        return token.key_for(held, self._clock())

    def frame(self, event: str, document: Document, epoch: str, token_id: int, held: KeyIds) -> bytes:
        """Return the event named ``event`` that tells how the config of ``document`` stands: running or deleted."""
        if document.content is None:
            return self._payloads.framed(document, event, "", lambda: state_frame(event, _state(document, epoch)))
        key = self.key(token_id, held)
        return self._payloads.framed(
            document,
            event,
            key.id,
            lambda: self._template(event, document, epoch).fill(self._payloads.bound(document, epoch, key.key, key.id)),
        )

    def _template(self, event: str, document: Document, epoch: str) -> StateTemplate:
        """Return the latest template again when it is still the one asked for: for all tokens of a change it is."""
        wanted = (event, document.revision)
        if self._latest is None or self._latest[0] != wanted:
            self._latest = (wanted, StateTemplate(event, _state(document, epoch)))
        return self._latest[1]


@dataclass(frozen=True, slots=True, eq=False)
class StateInterest:
    """The changes of a set of configs, told with their payloads to a client that holds the keys ``held``."""

    token: Token
    held: KeyIds
    keys: frozenset[ConfigKey]
    epoch: str
    frames: StateFrames

    @property
    def beat(self) -> Beat:
        """Only our own clients read these streams, and they are told the interval."""
        return Beat.STATE

    @property
    def identity(self) -> Hashable:
        """A token's rights never change, so its id stands for them."""
        return (self.token.id, self.held, self.keys)

    def places(self) -> Iterable[str | ConfigKey]:
        """Return every config that is watched."""
        return self.keys

    def covers(self, key: ConfigKey) -> bool:
        """Tell whether this reader wants the changes of ``key``: whatever it may not see is not among its keys."""
        return key in self.keys

    def frame(self, change: ChangeFrame, document: Document | None) -> bytes:
        """Return the event that tells how the config stands since ``change``."""
        if document is None:
            raise ValueError(f"revision {change.revision}: a change without its document cannot be stated")
        return self.frames.frame(CHANGED_EVENT, document, self.epoch, self.token.id, self.held)


class Stated(NamedTuple):
    """What is to be stated of one config: its newest version, or how it stands without one."""

    key: ConfigKey
    document: Document | None
    without: Standing = Standing.MISSING


def newest_held(rows: Iterable[Held], epoch: str) -> int:
    """Return the newest revision of ``epoch`` that a client says it holds, 0 when it holds none."""
    return max((row.position.revision for row in rows if row.position and row.position.epoch == epoch), default=0)


def meant(rows: Iterable[Held], token: Token) -> frozenset[ConfigKey]:
    """Return the configs that ``rows`` mean."""
    return frozenset(_key_of(row, token) for row in rows)


def readable(rows: Iterable[Held], token: Token) -> frozenset[ConfigKey]:
    """Return the configs of ``rows`` that ``token`` may read; its rights never change."""
    return frozenset(key for key in meant(rows, token) if token.may(Right.READ, key.name, key.environment))


def compare(
    rows: Sequence[Held], running: Running, token: Token, here: Position, may_read: frozenset[ConfigKey] | None = None
) -> tuple[list[Stated], frozenset[ConfigKey]]:
    """Return what must be stated to a client that holds ``rows``, and the keys that it may hear of from now on.

    Whatever the client does not hold at exactly its newest position is stated; what is refused or missing always is.
    Rows that mean the same config are one: it is stated once, when any of them differs. ``may_read``: what ``readable``
    has found out beforehand.
    """
    allowed = readable(rows, token) if may_read is None else may_read
    standing: dict[ConfigKey, Stated | None] = {}
    heard: list[ConfigKey] = []
    for row in rows:
        key = _key_of(row, token)
        if standing.get(key) is not None:
            continue
        if key not in standing and key in allowed:
            heard.append(key)
            standing[key] = None
        elif key not in standing:
            standing[key] = Stated(key, None, Standing.REFUSED)
            continue
        document = running.get(key)
        if document is None:
            standing[key] = Stated(key, None, Standing.MISSING)
        elif row.position != Position(here.epoch, document.revision):
            standing[key] = Stated(key, document)
    return [stated for stated in standing.values() if stated is not None], frozenset(heard)


def _key_of(row: Held, token: Token) -> ConfigKey:
    return ConfigKey(row.name, row.environment or token.default_environment, row.label or DEFAULT_LABEL)


def stating(stated: Sequence[Stated], interest: StateInterest, position: Position) -> Iterator[bytes]:
    """Yield the event that states each of ``stated``, then the one that says that this was all up to ``position``.

    Lazily: ten thousand configs are sealed while their reader takes them, not before.
    """
    for key, document, without in stated:
        if document is None:
            yield state_frame(STATE_EVENT, ConfigState(key.name, key.environment, key.label, without))
        else:
            yield interest.frames.frame(STATE_EVENT, document, position.epoch, interest.token.id, interest.held)
    yield synced_frame(position)


def _state(document: Document, epoch: str) -> ConfigState:
    key = document.key
    return ConfigState(
        name=key.name,
        environment=key.environment,
        label=key.label,
        standing=Standing.DELETED if document.deleted else Standing.RUNNING,
        position=Position(epoch, document.revision),
        version=document.version,
        changed_by=document.changed_by,
        timestamp=document.timestamp,
    )
