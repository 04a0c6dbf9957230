"""How long to wait before the next attempt: an immutable policy. Does no I/O and does not sleep.

Applying a policy returns the delay and the policy to apply next; a reset is using the first one again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

MAX_DELAY: Final = 30.0
"""Seconds; the upper bound of a delay, unless a policy says otherwise."""
MAX_RETRY_AFTER: Final = 60.0
"""Seconds; a service that asks for a longer pause is not asked again within the same call."""

Uniform = Callable[[float, float], float]


def backoff_delay(attempt: int, base_delay: float) -> float:
    """Return the seconds to wait before retry number ``attempt`` (from 0).

    Exponential with full jitter: uniform in 0 … min(base · 2^attempt, 30).
    """
    return random.uniform(0.0, _ceiling(attempt, base_delay))  # noqa: S311 - jitter, not a secret


class Backoff(NamedTuple):
    """Exponential backoff with full jitter, without an end. ``base`` and ``cap`` in seconds."""

    base: float
    cap: float = MAX_DELAY
    attempt: int = 0

    def next(self, uniform: Uniform = random.uniform) -> tuple[float, Backoff]:
        """Return the delay in seconds and the policy for the failure after this one."""
        delay = uniform(0.0, _ceiling(self.attempt, self.base, self.cap))
        return delay, self._replace(attempt=self.attempt + 1)


class RetryPolicy(NamedTuple):
    """A bounded number of retries of one request, each after a backoff that also honours ``Retry-After``."""

    retries: int
    base: float
    attempt: int = 0

    def next(
        self, retry_after: float | None = None, uniform: Uniform = random.uniform
    ) -> tuple[float, RetryPolicy] | None:
        """Return the delay in seconds and the next policy, or None when it is time to give up.

        ``retry_after`` is the pause in seconds that the service asked for; asked for more than a minute, give up
        rather than come back early.
        """
        if self.attempt >= self.retries or (retry_after is not None and retry_after > MAX_RETRY_AFTER):
            return None
        delay = max(uniform(0.0, _ceiling(self.attempt, self.base)), retry_after or 0.0)
        return delay, self._replace(attempt=self.attempt + 1)


def _ceiling(attempt: int, base: float, cap: float = MAX_DELAY) -> float:
    # 2**attempt would grow without bound on a client that fails for weeks.
    return float(min(base * 2 ** min(attempt, 32), cap))
