"""Requests counted: by route and status, by the code of the error, and how long they took.

Knows exchanges. Routes are templates, methods and statuses few, codes those of ``domain.errors``: the number of series
does not grow with what clients send.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from ..telemetry.tallies import Distributions
from .exchange import Exchange

BOUNDS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds: a read from memory takes a fraction of a millisecond, an export of a large document seconds."""
UNMATCHED: Final = "unmatched"
"""Stands for the route of a request that has none."""
_AUTH_FAILURES: Final = frozenset({"unauthenticated", "too_many_failures"})


class RequestTally:
    """An observer of exchanges."""

    def __init__(self) -> None:
        self.seconds: Final = Distributions[tuple[str, str, int]](BOUNDS)
        """Seconds until the answer was complete, by method, route and status (0: the client hung up before)."""
        self.errors: Final[Counter[str]] = Counter()
        """How many were refused or failed, by the code of the error."""

    def __call__(self, exchange: Exchange) -> None:
        """Count ``exchange``, which is complete."""
        # Every request comes by here.
        key = (exchange.method, exchange.route or UNMATCHED, exchange.status)
        held = self.seconds.by_key.get(key)
        if held is None:
            self.seconds.add(key, exchange.seconds)
        else:
            held.add(exchange.seconds)
        if exchange.code:
            self.errors[exchange.code] += 1

    @property
    def auth_failures(self) -> int:
        """How many came without a valid token."""
        return sum(self.errors[code] for code in _AUTH_FAILURES)
