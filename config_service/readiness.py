"""Why this process should not be sent requests now: named checks, each of which tells a reason or nothing.

Knows checks and time. Knows nothing of HTTP. Reasons are shown without a token: they name no secret, host or file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from .domain.errors import StoreFullError
from .telemetry.measured_store import StoreTally

Check = Callable[[], str | None]
"""Returns why the process is not ready, in a few words, or None when it is. Must return at once."""
PROBE_EVERY: Final = 1.0
"""Seconds for which what a look at the store found is believed: whoever asks without a token asks for no more work."""
PROBE_TIMEOUT: Final = 2.0
"""Seconds after which a store that does not answer counts as unreachable."""
WRITE_FAILURE_COUNTS: Final = 30.0
"""Seconds for which a failed commit counts. Who is sent no requests makes no commit that could succeed again."""


class Readiness:
    """The checks of one process, in the order in which they were added."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._looks: list[Callable[[], Awaitable[None]]] = []

    def add(self, name: str, check: Check, look: Callable[[], Awaitable[None]] | None = None) -> None:
        """Ask ``check`` from now on, under ``name``; where there is time to wait, ``look`` is awaited before."""
        self._checks[name] = check
        if look is not None:
            self._looks.append(look)

    def reasons(self) -> dict[str, str]:
        """Return why the process is not ready, by the names of the checks; empty when it is."""
        told = {name: check() for name, check in self._checks.items()}
        return {name: reason for name, reason in told.items() if reason is not None}

    async def look(self) -> dict[str, str]:
        """Return what ``reasons`` returns, after every look that a check needs."""
        for look in self._looks:
            await look()
        return self.reasons()


class StoreChecks:
    """Whether the store of record can be read, by asking it, and written to, by how the latest commits went."""

    def __init__(self, ask: Callable[[], Awaitable[object]], tally: StoreTally, monotonic: Callable[[], float]) -> None:
        self._ask = ask
        self._tally = tally
        self._monotonic = monotonic
        self._asked = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._unreachable = False

    async def look(self) -> None:
        """Ask the store, unless it was asked a moment ago."""
        if self._asking is None:
            if self._monotonic() - self._asked < PROBE_EVERY:
                return
            self._asking = asyncio.create_task(self._look())
        # All who wait, wait for the same answer; one that hangs up does not end it for the others.
        await asyncio.shield(self._asking)

    def close(self) -> None:
        """Ask no more: the store is about to be closed."""
        if self._asking is not None:
            self._asking.cancel()

    def reachable(self) -> str | None:
        """Tell when the store did not answer."""
        return "the store of record cannot be read" if self._unreachable else None

    def writable(self) -> str | None:
        """Tell when the latest commit failed, and not long ago."""
        failure = self._tally.failed_commit
        if failure is None or self._monotonic() - failure.at > WRITE_FAILURE_COUNTS:
            return None
        if isinstance(failure.error, StoreFullError):
            return "the store of record had no space left for the latest change"
        return "the store of record failed at the latest change"

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._ask()
        except Exception:
            # Counted by the tally of the store; here it means no more than that there was no answer.
            self._unreachable = True
        else:
            self._unreachable = False
        finally:
            self._asked = self._monotonic()
            self._asking = None
