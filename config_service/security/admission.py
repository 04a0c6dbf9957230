"""Who is let in, and how often: a bucket of requests for every token, and a growing pause for whoever keeps guessing.

Knows the registry of tokens, addresses of peers and clocks. Knows nothing of HTTP. Everything is in the memory of one
process: each replica counts for itself.

A valid token is never kept out by its address. Behind a proxy or a NAT many clients have one address, and a single one
with a wrong secret must not lock the others out; and nobody guesses one of 2²⁵⁶ secrets, so refusing right ones in the
meantime would protect nothing. What the pause does is tell a client gone wrong to leave the service alone: the bulk of
its requests is told when to come back, and the only ones that count are those that come then.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from ..domain.errors import RateLimitedError, TooManyFailuresError, UnauthenticatedError
from .tokens import Token, TokenRegistry

MAX_ADDRESSES: Final = 10_000
"""Addresses whose failures are remembered; the one that failed least recently is forgotten first."""
MAX_PAUSE: Final = 60.0
"""Seconds up to which the pause after a failure grows, from 1 second on, twice as long each time."""
FORGET_AFTER: Final = 900.0
"""Seconds without a failure after which an address begins anew."""
_IPV6_SUBSCRIBER: Final = 64
"""Bits of an IPv6 address that name a subscriber, who has all the others to himself (RFC 6177)."""

Monotonic = Callable[[], float]
_logger = logging.getLogger("config_service")


class Buckets:
    """A bucket of ``burst`` requests for every token, filled by ``rate`` requests a second. A rate of 0: no limit.

    What is kept of a bucket is the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371).
    """

    __slots__ = ("_clock", "_depth", "_full_at", "_interval")

    def __init__(self, rate: float, burst: int, clock: Monotonic) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._depth = burst * self._interval
        self._clock = clock
        self._full_at: dict[int, float] = {}

    def take(self, token_id: int) -> float:
        """Take one request out of the bucket and return 0.0; or return the seconds until there is one to take."""
        if not self._interval:
            return 0.0
        now = self._clock()
        full_at = max(self._full_at.get(token_id, 0.0), now) + self._interval
        missing = full_at - now - self._depth
        # A rounding error is no reason to refuse.
        if missing > 1e-9:
            return missing
        self._full_at[token_id] = full_at
        return 0.0


@dataclass(slots=True)
class _Record:
    """What is known of an address that failed: how often in a row, when last, and until when it is to be quiet."""

    count: int
    last: float
    quiet_until: float


class Failures:
    """Failed authentications by address. ``allowed`` of them are free; 0: no limit."""

    __slots__ = ("_allowed", "_clock", "_records")

    def __init__(self, allowed: int, clock: Monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def note(self, peer: str) -> float:
        """Count a failure of ``peer`` and return 0.0; or, in its pause, return the seconds that are left of it."""
        if not self._allowed:
            return 0.0
        now, place = self._clock(), _subscriber(peer)
        record = self._records.pop(place, None)
        if record is None or now - record.last > FORGET_AFTER:
            record = _Record(0, now, 0.0)
        self._records[place] = record
        if now < record.quiet_until:
            return record.quiet_until - now
        record.count += 1
        record.last = now
        over = record.count - self._allowed
        if over >= 0:
            if over == 0:
                _logger.warning("%d authentications failed from %s; further ones are told to wait", record.count, place)
            record.quiet_until = now + min(MAX_PAUSE, 2.0 ** min(over, 16))
        if len(self._records) > MAX_ADDRESSES:
            self._records.popitem(last=False)
        return 0.0


class Admission:
    """Lets requests in, or tells why not."""

    def __init__(
        self,
        *,
        registry: TokenRegistry,
        clock: Callable[[], datetime],
        monotonic: Monotonic,
        rate: float,
        burst: int,
        failures: int,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._buckets = Buckets(rate, burst, monotonic)
        self._failures = Failures(failures, monotonic)

    def admit(self, secret: str, peer: str) -> Token:
        """Return the token that ``secret`` proves, for one request from the address ``peer`` (empty: not known).

        Raises UnauthenticatedError; TooManyFailuresError instead while the address is to be quiet; RateLimitedError
        when the token's bucket is empty.
        """
        try:
            token = self._registry.authenticate(secret, self._clock())
        except UnauthenticatedError:
            pause = self._failures.note(peer)
            if not pause:
                raise
        else:
            self.count(token)
            return token
        raise TooManyFailuresError(
            "too many requests from this address came with a token that is unknown, expired or revoked; "
            "ask an operator for a valid one",
            pause,
        )

    def count(self, token: Token) -> None:
        """Take one request out of the bucket of ``token``. Raises RateLimitedError when it is empty."""
        missing = self._buckets.take(token.id)
        if missing:
            raise RateLimitedError(
                "this token sends more requests than the service allows; ask less often, or ask an operator for a "
                "higher limit",
                missing,
            )


def _subscriber(peer: str) -> str:
    """Return what is counted together: an IPv4 address, or the network of an IPv6 subscriber."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address), _IPV6_SUBSCRIBER), strict=False))
    return str(address)
