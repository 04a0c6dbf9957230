"""What the in-memory service remembers of its clients: what they asked, and the newest versions that they were sent.

Knows requests and versions. Knows nothing of sockets; its caller holds the lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..protocol import WATCH_PATH, Held
from ._faults import Refusal
from ._http import Request
from ._memory import ConfigKey, Version
from ._paths import parse_query
from ._routes import parse_held

REMEMBERED: Final = 10_000
"""Requests that are kept in ``InMemoryService.requests``, the newest ones."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that was answered; it never tells the token.

    ``watched``: what a state-first watch said that it holds.
    """

    method: str
    path: str
    query: Mapping[str, str]
    status: int
    watched: tuple[Held, ...] = field(default=())


class Journal:
    """The requests that came, and what was sent of each config."""

    def __init__(self) -> None:
        self.requests: Final[deque[RecordedRequest]] = deque(maxlen=REMEMBERED)
        self._sent: dict[ConfigKey, int] = {}

    def record(self, request: Request, status: int) -> None:
        """Remember that ``request`` was answered with ``status``."""
        try:
            query = parse_query(request.query)
        except Refusal:
            query = {}
        watched: tuple[Held, ...] = ()
        if request.path == WATCH_PATH.encode() and status == 200:
            watched = tuple(parse_held(request))
        path = request.path.decode("ascii", "backslashreplace")
        self.requests.append(RecordedRequest(request.method, path, query, status, watched))

    def note(self, version: Version) -> None:
        """Remember that some client was sent ``version``."""
        self._sent[version.key] = max(version.number, self._sent.get(version.key, 0))

    def sent(self, key: ConfigKey) -> int | None:
        """Return the newest version of ``key`` that some client was sent, or None when none was."""
        return self._sent.get(key)

    def forget_sent(self) -> None:
        """Forget what was sent: the versions of another history begin."""
        self._sent.clear()
