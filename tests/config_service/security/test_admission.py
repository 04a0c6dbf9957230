"""Who is let in, and how often: by a clock that the test moves."""

from __future__ import annotations

from datetime import datetime, timezone
from random import Random

import pytest

from config_service.domain.errors import RateLimitedError, TooManyFailuresError, UnauthenticatedError
from config_service.domain.scopes import SERVICE_SCOPES
from config_service.security.admission import FORGET_AFTER, MAX_ADDRESSES, MAX_PAUSE, Admission, Buckets, Failures
from config_service.security.tokens import Token, TokenRegistry, hash_secret

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


class Seconds:
    """A monotonic clock that begins somewhere."""

    def __init__(self) -> None:
        self.now = 1234.5

    def __call__(self) -> float:
        return self.now


def registry(*secrets: str) -> TokenRegistry:
    made = TokenRegistry()
    for number, secret in enumerate(secrets, 1):
        digest = hash_secret(secret)
        made.put(Token(number, "t", digest, (bytes(32),), ("0" * 16,), "default", SERVICE_SCOPES, 0, NOW, None, None))
    return made


def admission(seconds: Seconds, *secrets: str, rate: float = 0, burst: int = 1, failures: int = 0) -> Admission:
    return Admission(
        registry=registry(*secrets), clock=lambda: NOW, monotonic=seconds, rate=rate, burst=burst, failures=failures
    )


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    """Ten at once, two a second afterwards; the seconds told are those after which there is one."""
    seconds = Seconds()
    buckets = Buckets(2.0, 10, seconds)
    assert [buckets.take(1) for _ in range(10)] == [0.0] * 10
    assert buckets.take(1) == pytest.approx(0.5)
    assert buckets.take(1) == pytest.approx(0.5), "a refusal takes nothing"
    seconds.now += 0.5
    assert buckets.take(1) == 0.0
    assert buckets.take(1) == pytest.approx(0.5)
    seconds.now += 3600
    assert [buckets.take(1) for _ in range(10)] == [0.0] * 10, "and never more than the burst"
    assert buckets.take(1) > 0


def test_buckets_are_one_for_each_token() -> None:
    """What one sends is nothing to another."""
    buckets = Buckets(1.0, 1, Seconds())
    assert buckets.take(1) == 0.0
    assert buckets.take(1) > 0
    assert buckets.take(2) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_no_more_than_burst_and_rate_get_through_in_any_span(seed: int) -> None:
    """Whatever the times at which requests come: in a span of t seconds at most burst + rate · t."""
    random, seconds = Random(seed), Seconds()
    rate, burst = random.uniform(0.5, 20), random.randint(1, 20)
    buckets, passed = Buckets(rate, burst, seconds), []
    for _ in range(2000):
        seconds.now += random.expovariate(rate * random.choice([0.5, 2, 10]))
        if buckets.take(1) == 0.0:
            passed.append(seconds.now)
    for first in range(0, len(passed), 7):
        for last in range(first, len(passed), 11):
            assert last - first + 1 <= burst + rate * (passed[last] - passed[first]) + 1e-6
    assert len(passed) >= burst


def test_without_a_rate_nothing_is_limited() -> None:
    """0 is off."""
    buckets = Buckets(0, 1, Seconds())
    assert {buckets.take(1) for _ in range(1000)} == {0.0}


def test_the_pause_after_failures_grows_up_to_a_minute() -> None:
    """The first failures are free; each further one that comes after its pause doubles the next."""
    seconds = Seconds()
    failures = Failures(3, seconds)
    assert [failures.note("10.0.0.1") for _ in range(3)] == [0.0] * 3
    pauses = []
    for _ in range(9):
        pauses.append(failures.note("10.0.0.1"))
        assert failures.note("10.0.0.1") == pauses[-1], "what comes too early is not counted"
        seconds.now += pauses[-1]
        assert failures.note("10.0.0.1") == 0.0
    assert pauses == [1, 2, 4, 8, 16, 32, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]


def test_failures_are_forgotten_after_a_quiet_time() -> None:
    """The address begins anew."""
    seconds = Seconds()
    failures = Failures(1, seconds)
    assert failures.note("10.0.0.1") == 0.0
    assert failures.note("10.0.0.1") > 0
    seconds.now += FORGET_AFTER + 1
    assert failures.note("10.0.0.1") == 0.0
    assert failures.note("10.0.0.1") == 1.0


def test_addresses_are_counted_apart_and_ipv6_by_subscriber() -> None:
    """A whole /64 is one subscriber's; a mapped IPv4 address is that address; no address is one of its own."""
    failures = Failures(1, Seconds())
    for peer in ("10.0.0.1", "2001:db8:0:1::1", "2001:db8:0:2::1", "", "fe80::1%eth0", "10.0.0.2"):
        assert failures.note(peer) == 0.0, peer
    for peer in ("::ffff:10.0.0.1", "2001:db8:0:1:ffff::2", ""):
        assert failures.note(peer) > 0, peer


def test_memory_is_bounded_by_forgetting_who_failed_least_recently() -> None:
    """Whoever has many addresses gets each of them forgotten, and nobody's memory grows."""
    failures = Failures(1, Seconds())
    failures.note("first")
    for number in range(MAX_ADDRESSES - 1):
        failures.note(f"a{number}")
    assert failures.note("first") > 0, "still known, and the most recent now"
    failures.note("one more")
    assert len(failures) == MAX_ADDRESSES
    assert failures.note("first") > 0
    assert failures.note("a0") == 0.0


def test_a_valid_token_is_let_in_while_its_address_is_to_be_quiet() -> None:
    """Many clients may share an address, and one of them must not lock the others out."""
    admitting = admission(Seconds(), "good", failures=2)
    for _ in range(2):
        with pytest.raises(UnauthenticatedError):
            admitting.admit("bad", "10.0.0.1")
    with pytest.raises(TooManyFailuresError) as told:
        admitting.admit("bad", "10.0.0.1")
    assert told.value.retry_after == 1.0
    assert told.value.__context__ is None
    assert admitting.admit("good", "10.0.0.1").id == 1
    with pytest.raises(TooManyFailuresError):
        admitting.admit("bad", "10.0.0.1")
    with pytest.raises(UnauthenticatedError):
        admitting.admit("bad", "10.0.0.2")


def test_a_token_over_its_rate_is_told_when_to_come_back() -> None:
    """And only that token; it counts as no failure of its address."""
    seconds = Seconds()
    admitting = admission(seconds, "one", "two", rate=0.5, burst=1, failures=1)
    admitting.admit("one", "10.0.0.1")
    for _ in range(3):
        with pytest.raises(RateLimitedError) as told:
            admitting.admit("one", "10.0.0.1")
        assert told.value.retry_after == pytest.approx(2.0)
    assert admitting.admit("two", "10.0.0.1").id == 2
    seconds.now += 2
    assert admitting.admit("one", "10.0.0.1").id == 1
    with pytest.raises(UnauthenticatedError):
        admitting.admit("bad", "10.0.0.1")


def test_without_a_limit_failures_are_only_refused() -> None:
    """0 is off."""
    admitting = admission(Seconds())
    for _ in range(100):
        with pytest.raises(UnauthenticatedError):
            admitting.admit("bad", "10.0.0.1")
