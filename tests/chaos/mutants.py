"""The client with one law broken, each the way that such clients are broken in the field. By patching, in this process.

What these do not survive is what the rounds can see.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from config_client._interrupt import Interrupt
from config_client._keeper import Keeper
from config_client._rounds import Seen
from config_client._state_watch import StateWatch
from config_client._states import ConfigState, Standing
from config_client._steps import Fetched, StatesOpened, Unseal
from config_client._tracks import Track
from config_client.errors import ConfigClientError
from config_client.protocol import metadata_of


def one_cursor_for_the_stream(patch: pytest.MonkeyPatch) -> None:
    """Law 1: what the service has is taken for what is held, so that what was missed is never stated."""
    listen = StateWatch._listen

    def listen_from_here(watch: StateWatch, opened: StatesOpened) -> Generator[Any, Any, ConfigClientError | None]:
        for track in watch._tracks:
            if track.found:
                track.seen = replace(track.seen, position=opened.position)
        return (yield from listen(watch, opened))

    patch.setattr(StateWatch, "_listen", listen_from_here)


def deaf_to_silence(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a connection that is only half open is believed for ever."""
    patch.setattr("config_client._driver.silence_limit", lambda headers, heartbeat: 3600.0)


def gives_up_after_an_error(patch: pytest.MonkeyPatch) -> None:
    """Law 1: a service that is unavailable for a moment ends the watch, in silence."""

    def recover(watch: StateWatch, failure: ConfigClientError) -> Generator[Any, Any, None]:
        for track in tuple(watch._tracks):
            watch.remove(track)
        yield from ()

    patch.setattr(StateWatch, "_recover", recover)


def no_look_at_positions(patch: pytest.MonkeyPatch) -> None:
    """Law 2: whatever arrives last is taken for the newest, by the watch and by the snapshot's keeper."""
    take, swap = StateWatch._take, Keeper._swap

    def take_all(watch: StateWatch, track: Track, state: ConfigState) -> Generator[Any, Any, None]:
        if state.standing is not Standing.RUNNING:
            yield from take(watch, track, state)
            return
        fetched = yield Unseal(track, state)
        yield from watch._hold(track, fetched if isinstance(fetched, Fetched) else Fetched(metadata_of(state)))

    def swap_all(keeper: Keeper[Any], value: Any, *further: Any) -> ConfigClientError | None:
        keeper.position = None
        return swap(keeper, value, *further)

    patch.setattr(StateWatch, "_take", take_all)
    patch.setattr(Keeper, "_swap", swap_all)
    patch.setattr(Seen, "is_news", lambda seen, fetched: True)


def loses_the_value(patch: pytest.MonkeyPatch) -> None:
    """Law 3: what cannot be used takes the place of what could."""
    trouble = Keeper.trouble

    def clear(keeper: Keeper[Any], reason: str, error: ConfigClientError) -> None:
        keeper.snapshot.store(None)
        trouble(keeper, reason, error)

    patch.setattr(Keeper, "trouble", clear)


def says_nothing_of_trouble(patch: pytest.MonkeyPatch) -> None:
    """Law 3: the old value stays, and the status says that all is well."""
    patch.setattr(Keeper, "trouble", lambda keeper, reason, error: None)


def leaves_its_reads_alone(patch: pytest.MonkeyPatch) -> None:
    """Law 6: closing tells whoever asks, and wakes no thread that reads."""

    def set_only(interrupt: Interrupt) -> None:
        with interrupt._changed:
            if not interrupt._is_set:
                interrupt._is_set = True
                interrupt._gate.release()
            waiters = list(interrupt._waiters)
        for waiter in waiters:
            waiter.interrupted()

    patch.setattr(Interrupt, "set", set_only)


@dataclass(frozen=True)
class Mutant:
    """What breaks which law. ``seed``: one whose first rounds show it. ``heartbeat``: seconds between the service's."""

    law: int
    apply: Callable[[pytest.MonkeyPatch], None]
    seed: int = 80077
    heartbeat: float = 0.15

    @property
    def name(self) -> str:
        """What it does, for the report."""
        return f"law-{self.law}-{self.apply.__name__}"


MUTANTS: Final = (
    Mutant(1, one_cursor_for_the_stream),
    Mutant(1, deaf_to_silence),
    Mutant(1, gives_up_after_an_error),
    Mutant(2, no_look_at_positions),
    Mutant(3, loses_the_value),
    Mutant(3, says_nothing_of_trouble),
    # Heartbeats so rare that none ends the read while it is waited for; with a seed that does not wait for three.
    Mutant(6, leaves_its_reads_alone, seed=223, heartbeat=10.0),
)
