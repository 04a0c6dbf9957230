"""The application's side of a watch: what a driver hands over to.

Knows callbacks and logging. Knows nothing of streams or threads.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from ._steps import Heard, LocalCommand, Notify, Outcome, Report
from ._tracks import Track
from .errors import ConfigClientError
from .options import Options
from .types import ConfigChangeEvent

A = TypeVar("A")

logger: Final = logging.getLogger("config_client")


class Desk(Protocol):
    """Who a driver works for."""

    def subject(self, track: Track | None) -> tuple[str, dict[str, str]]:
        """Return name and query of the config that a command means."""

    def perform(self, command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        """Perform a command that needs no network; awaitable where the application's own code is."""

    def contact(self) -> None:
        """Take note that the stream has just brought something, be it a heartbeat."""

    def drain(self) -> None:
        """Pass on, between two steps, what has changed in the set of configs."""

    def delegate(self) -> None:
        """Give every config a base stream of its own."""

    def recall(self) -> None:
        """End the base streams that were delegated."""


class SingleDesk:
    """What the sides of a watch of one config have in common: the set of configs never changes."""

    def __init__(self, config_name: str, query: dict[str, str]) -> None:
        self._name = config_name
        self._query = query

    def subject(self, track: Track | None) -> tuple[str, dict[str, str]]:
        """Return the one config."""
        return self._name, self._query

    def contact(self) -> None:
        """Nobody asks for the age of what this stream tells."""

    def drain(self) -> None:
        """There is nothing to pass on."""

    def delegate(self) -> None:
        """This is a base stream already."""

    def recall(self) -> None:
        """Nothing was delegated."""


class EventDesk(SingleDesk):
    """The side of ``watch``: one config name, one callback."""

    def __init__(
        self,
        options: Options,
        config_name: str,
        query: dict[str, str],
        callback: Callable[[ConfigChangeEvent], object],
    ) -> None:
        super().__init__(config_name, query)
        self._options = options
        self._callback = callback

    def perform(self, command: LocalCommand) -> Outcome:
        """Call the application's callbacks."""
        match command:
            case Notify():
                call("watch", self._callback, command.event)
            case Heard():
                call("on_change", self._options.on_change, self._name)
            case Report():
                report(self._options, self._name, command.error)
            case _:
                pass
        return None


def report(options: Options, config_name: str | None, error: ConfigClientError, level: int = logging.WARNING) -> None:
    """Log ``error`` and hand it to ``on_error``."""
    if config_name is None:
        logger.log(level, "watch: %s", error)
    else:
        logger.log(level, "watch of config %r: %s", config_name, error)
    call("on_error", options.on_error, error)


def call(name: str, callback: Callable[[A], object] | None, argument: A) -> None:
    """Call an application's callback; what it raises is logged by type, since its text may hold a secret."""
    if callback is None:
        return
    try:
        callback(argument)
    except Exception as error:
        logger.error("%s callback raised %s; the watch goes on", name, type(error).__name__)
