"""Who hears of which change: audiences by name and key, the replay of missed changes, heartbeats and endings.

Knows subscriptions, tokens and time. Knows nothing of HTTP or stores, and never waits for a reader.

Streams that hear the same are one audience, so that a change costs one decision and one frame for all of them and
then a write for each. Thousands of writes are made in turns, between which the event loop serves others; whoever is in
an audience when a change is published gets that change, in the order of revisions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, overload

from config_client.protocol import Position

from .. import origin
from ..domain.documents import Document
from ..domain.errors import UnavailableError
from ..domain.keys import ConfigKey
from ..logs import log_event
from ..telemetry.spans import Spans
from .frames import reset_frame
from .replay import ChangeFrame, History
from .subscription import (
    Audience,
    Beat,
    End,
    Interest,
    NamedInterest,
    Opened,
    QueuedReader,
    Reader,
    Replay,
    S,
    Subscription,
    Told,
)
from .tally import StreamTally
from .turns import Turns

_EXPIRY_CHECK: Final = 60.0
"""Seconds after which a token's expiry is compared with the clock again: clocks can be set."""
_AT_A_TIME: Final = 128
"""Streams written to between two looks at what was spent."""
_MAKING: Final = 8
"""What making a frame costs, in writes: sealing and encoding."""
_BYTES_PER_WRITE: Final = 16 * 1024
"""Bytes that cost as much as a write by itself."""

_Told = list[tuple[Audience, tuple[Subscription, ...]]]
"""Who hears of something: audiences with the streams that they had at that moment."""
_logger = logging.getLogger("config_service")


class Hub:
    """All subscriptions of this process. Used on one event loop; ``publish`` is called by the feed alone."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        queue_frames: int,
        heartbeat_interval: float,
        watch_heartbeat_interval: float = 15.0,
        spans: Spans | None = None,
    ) -> None:
        self._clock = clock
        self._queue_frames = queue_frames
        self._spans = spans
        self.intervals: Final[Mapping[Beat, float]] = {
            Beat.BASE: heartbeat_interval,
            Beat.STATE: watch_heartbeat_interval,
        }
        """Seconds between two heartbeats, for each kind of stream."""
        self._epoch = ""
        self._history = History()
        self._audiences: dict[Hashable, Audience] = {}
        self._listening: dict[str | ConfigKey, dict[Audience, None]] = {}
        self._turns = Turns()
        self.tally: Final = StreamTally()
        """What has happened so far."""
        self._closed = False

    def load(self, epoch: str, history: History) -> None:
        """Replay from ``history``, the latest changes of ``epoch``, from now on."""
        self._epoch = epoch
        self._history = history

    @overload
    def subscribe(self, interest: NamedInterest, last_event_id: str | None = None) -> QueuedReader: ...

    @overload
    def subscribe(self, interest: NamedInterest, last_event_id: str | None, reader: Reader[S]) -> S: ...

    def subscribe(
        self, interest: NamedInterest, last_event_id: str | None = None, reader: Reader[Subscription] = QueuedReader
    ) -> Subscription:
        """Return a subscription to the changes of ``interest`` from this moment on.

        With ``last_event_id`` it first gives every change missed since that event, or says ``reset`` when they are
        not all known. Nothing happens between replay and subscription: there is no gap and no duplicate.

        Raises UnavailableError when the service is stopping.
        """
        replay, missed = self._replay(interest, last_event_id)
        return self.join(interest, missed, reader, replay)

    def join(
        self,
        interest: Interest,
        backlog: Iterable[bytes],
        reader: Reader[S],
        replay: Replay = Replay.NOT_ASKED,
    ) -> S:
        """Return a subscription that first gives ``backlog``, made while it is read, and then what happens from now on.

        Raises UnavailableError when the service is stopping.
        """
        if self._closed:
            raise UnavailableError("the service is stopping; connect again")
        audience = self._audience(interest)
        stream = reader(audience, replay, iter(backlog) if backlog else None, self._queue_frames)
        stream.opened = Opened(self._clock(), origin.current().address, self._history.latest)
        audience.streams[stream] = None
        self.tally.opened[interest.beat] += 1
        if audience.expiry is None:
            self._check_expiry(audience)
        return stream

    def publish(self, change: ChangeFrame, document: Document | None = None, before: Document | None = None) -> None:
        """Tell ``change``, which made ``document`` from ``before``, to all who are interested; keep it for replays.

        Without ``document`` (it was archived since) only those are told who hear events without payloads.
        """
        self._history.append(change)
        with_payload = self._listening.get(change.key, ()) if document is not None else ()
        listening = (*self._listening.get(change.key.name, ()), *with_payload)
        told = _present(audience for audience in listening if audience.interest.covers(change.key))
        if told:
            job = _tell(told, change, (before, document), self.tally)
            self._turns.add(job if self._spans is None else _traced(job, told, change, self._spans))

    def advance(self, revision: int) -> None:
        """Take note of a revision that changed no config."""
        self._history.advance(revision)

    def beat(self, kind: Beat = Beat.BASE) -> None:
        """Send one heartbeat to every stream of ``kind``."""
        told = _present(audience for audience in self._audiences.values() if audience.interest.beat is kind)
        if told:
            self._turns.add(_beat(told))

    async def beat_forever(self) -> None:
        """Send heartbeats until cancelled; one timer for all streams of a kind."""
        await asyncio.gather(*(self._beat_forever(kind) for kind in self.intervals))

    def end_token(self, token_id: int) -> None:
        """End every stream of a revoked token."""
        for audience in tuple(self._audiences.values()):
            if audience.interest.token.id == token_id:
                audience.end(End.REVOKED)

    def close(self) -> None:
        """End every stream and refuse new ones: the service is stopping."""
        self._closed = True
        self._turns.clear()
        for audience in tuple(self._audiences.values()):
            audience.end(End.SHUTDOWN)

    def __iter__(self) -> Iterator[Subscription]:
        for audience in self._audiences.values():
            yield from audience.streams

    def __len__(self) -> int:
        return sum(len(audience.streams) for audience in self._audiences.values())

    async def _beat_forever(self, kind: Beat) -> None:
        while True:
            await asyncio.sleep(self.intervals[kind])
            self.beat(kind)

    def _replay(self, interest: NamedInterest, last_event_id: str | None) -> tuple[Replay, list[bytes]]:
        if not last_event_id:
            return Replay.NOT_ASKED, []
        seen = Position.parse(last_event_id)
        missed = self._history.since(seen.revision, interest.name) if seen and seen.epoch == self._epoch else None
        if missed is None:
            return Replay.RESET, [reset_frame(Position(self._epoch, self._history.latest))]
        return Replay.EXACT, [change.frame for change in missed if interest.covers(change.key)]

    def _audience(self, interest: Interest) -> Audience:
        """Return the audience of all who hear the same as ``interest``."""
        identity = interest.identity
        audience = self._audiences.get(identity)
        if audience is None:
            audience = self._audiences[identity] = Audience(interest, self._leave)
            for place in interest.places():
                self._listening.setdefault(place, {})[audience] = None
        return audience

    def _leave(self, stream: Subscription, why: End) -> None:
        """Take note of ``stream``, which has ended."""
        audience = stream.audience
        self.tally.ended[audience.interest.beat, why] += 1
        if why is End.OVERFLOW:
            # The request under way is the publisher's, who has nothing to do with it.
            entered = origin.enter(origin.INTERNAL)
            token, address = audience.interest.token.id, stream.opened.address
            message = (
                "a stream of token %d from %s was cut: its reader was too slow; it may come back and misses nothing"
            )
            told = (token, address or "an unknown address")
            log_event(_logger, logging.WARNING, "stream_cut", message, *told, token_id=token, address=address)
            origin.leave(entered)
        if not audience.streams:
            self._forget(audience)

    def _forget(self, audience: Audience) -> None:
        """Leave nothing of an audience that has no stream any more."""
        if self._audiences.pop(audience.interest.identity, None) is None:
            return
        for place in audience.interest.places():
            there = self._listening[place]
            del there[audience]
            if not there:
                del self._listening[place]
        if audience.expiry is not None:
            audience.expiry.cancel()
            audience.expiry = None

    def _check_expiry(self, audience: Audience) -> None:
        expires_at = audience.interest.token.expires_at
        if expires_at is None or not audience.streams:
            return
        remaining = (expires_at - self._clock()).total_seconds()
        if remaining <= 0:
            audience.end(End.EXPIRED)
            return
        audience.expiry = asyncio.get_running_loop().call_later(
            min(remaining, _EXPIRY_CHECK), self._check_expiry, audience
        )


def _present(audiences: Iterable[Audience]) -> _Told:
    return [(audience, tuple(audience.streams)) for audience in audiences]


def _tell(
    told: _Told, change: ChangeFrame, made: tuple[Document | None, Document | None], tally: StreamTally
) -> Iterator[int]:
    before, document = (None if one is None else Told(one.version, one.revision) for one in made)
    for audience, streams in told:
        # All its streams may have ended since, with the rights to hear this.
        if not audience.streams:
            continue
        try:
            frame = audience.interest.frame(change, made[1])
        except Exception as error:
            # Their readers come back and learn of this change then; the others must not wait for that.
            _logger.error("a change of %s cannot be told: %s", change.key, type(error).__qualname__)
            for stream in streams:
                stream.end(End.FAILED)
            yield _MAKING
            continue
        yield _MAKING
        if document is not None:
            audience.note(change.key, document, before)
        each = 1 + len(frame) // _BYTES_PER_WRITE
        for start in range(0, len(streams), _AT_A_TIME):
            some = streams[start : start + _AT_A_TIME]
            for stream in some:
                try:
                    stream.offer(frame)
                except Exception as error:
                    _logger.error("a stream cannot be written to: %s", type(error).__qualname__)
                    stream.end(End.FAILED)
            tally.events[audience.interest.beat] += len(some)
            yield each * len(some)


def _traced(job: Iterator[int], told: _Told, change: ChangeFrame, spans: Spans) -> Iterator[int]:
    streams = sum(len(streams) for _, streams in told)
    end = spans.begin("fan-out", {"config_service.revision": change.revision, "config_service.streams": streams})
    try:
        yield from job
    finally:
        if end is not None:
            end("")


def _beat(told: _Told) -> Iterator[int]:
    for _, streams in told:
        for start in range(0, len(streams), _AT_A_TIME):
            some = streams[start : start + _AT_A_TIME]
            for stream in some:
                stream.beat()
            yield len(some)
