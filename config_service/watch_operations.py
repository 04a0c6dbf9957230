"""Opening streams: the part of the operations that concerns who hears of changes, and from which moment on.

Knows rights, configs and the hub. Knows nothing of HTTP, nor of how a stream is written to. Whether something exists is
told only to those who may see it: rights are checked first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, overload

from config_client.protocol import DEFAULT_LABEL, Held, Position

from .background import beside
from .delivery.feed import Feed
from .delivery.hub import Hub
from .delivery.reaching import Reaching
from .delivery.running import Running
from .delivery.states import KeyIds, StateFrames, StateInterest, compare, meant, newest_held, readable, stating
from .delivery.subscription import Beat, NamedInterest, QueuedReader, Reader, S, Subscription
from .delivery.watchers import Watching, watching
from .domain.errors import NotFoundError
from .domain.scopes import Right
from .security.tokens import Token, TokenRegistry

_MANY: Final = 256
"""Rows of a watch from which its rights are looked up on a thread."""


@dataclass(frozen=True, slots=True)
class Watch(Generic[S]):
    """A state-first stream, and the position at which it begins."""

    stream: S
    position: Position


class WatchOperations:
    """What holders of a token may listen to."""

    def __init__(
        self,
        *,
        running: Running,
        registry: TokenRegistry,
        feed: Feed,
        hub: Hub,
        reaching: Reaching,
        states: StateFrames,
        clock: Callable[[], datetime],
    ) -> None:
        self._running = running
        self._registry = registry
        self._feed = feed
        self._hub = hub
        self._reaching = reaching
        self._states = states
        self._clock = clock

    @property
    def heartbeats(self) -> Mapping[Beat, float]:
        """Seconds between two heartbeats, for each kind of stream."""
        return self._hub.intervals

    def watchers(self, token: Token, name: str | None = None, environment: str | None = None) -> Watching:
        """Return every open stream of this process, or those about ``name``, in ``environment``, with those configs.

        Raises AccessDeniedError without the right to administer: the rows tell of tokens and of every config.
        """
        token.require_admin()
        return watching(self._hub, self._running, name, environment)

    def name_of(self, token_id: int) -> str:
        """Return the name of a token, empty when there is none of that id."""
        token = self._registry.get(token_id)
        return "" if token is None else token.name

    @overload
    def subscribe(
        self,
        token: Token,
        name: str,
        *,
        environment: str | None = None,
        label: str = DEFAULT_LABEL,
        last_event_id: str | None = None,
    ) -> QueuedReader: ...

    @overload
    def subscribe(
        self,
        token: Token,
        name: str,
        *,
        environment: str | None = None,
        label: str = DEFAULT_LABEL,
        last_event_id: str | None = None,
        reader: Reader[S],
    ) -> S: ...

    def subscribe(
        self,
        token: Token,
        name: str,
        *,
        environment: str | None = None,
        label: str = DEFAULT_LABEL,
        last_event_id: str | None = None,
        reader: Reader[Subscription] = QueuedReader,
    ) -> Subscription:
        """Return a subscription, made by ``reader``, to the changes of configs named ``name`` with ``label``.

        Without ``environment``: in every environment that ``token`` may read, later ones included. With
        ``last_event_id``: beginning with what was missed since.

        Raises AccessDeniedError when the token may read none of them; NotFoundError when nothing was ever published
        there (a deleted config may come back and can be watched); UnavailableError when the service is stopping.
        """
        if environment is None:
            token.require_any(Right.READ, name)
        else:
            token.require(Right.READ, name, environment)
        interest = NamedInterest(token, name, label, environment)
        if not any(interest.covers(document.key) for document in self._running.named(name)):
            raise NotFoundError(f"{name}: there is no config of that name and label that this token may watch")
        return self._hub.subscribe(interest, last_event_id, reader)

    async def watch(self, token: Token, rows: Sequence[Held], key_ids: KeyIds, reader: Reader[S]) -> Watch[S]:
        """Return a subscription, made by ``reader``, to the configs of ``rows``, for a client that holds ``key_ids``.

        It first states every config whose newest state the client does not hold, then says that it has, then tells
        what happens. What the token may not read, what does not exist and what was deleted is stated as such.

        Raises UnauthenticatedError when the token was revoked meanwhile; UnavailableError when a client has heard of
        a revision that is not reached within a second, or the service is stopping.
        """
        # Scopes are globs, and there may be thousands of rows: other requests must not wait for that.
        may_read = await beside(lambda: readable(rows, token)) if len(rows) > _MANY else None
        epoch = self._feed.position.epoch
        await self._reaching.reach(Position(epoch, newest_held(rows, epoch)))
        if self._feed.shared and any(self._running.get(key) is None for key in meant(rows, token)):
            # Another process may have published it a moment ago.
            await self._feed.hear()
        # The body, and what it has heard of, may have taken their time.
        self._registry.confirm(token.id, self._clock())
        # Nothing is awaited from here on: between what is stated and what is told afterwards there is no gap.
        here = self._feed.position
        stated, keys = compare(rows, self._running, token, here, may_read)
        interest = StateInterest(token, key_ids, keys, here.epoch, self._states)
        return Watch(self._hub.join(interest, stating(stated, interest, here), reader), here)
