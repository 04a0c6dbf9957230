"""The delay policies: jitter within its bounds, caps, ``Retry-After``, and that applying a policy changes nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client import transport
from config_client.backoff import MAX_DELAY, MAX_RETRY_AFTER, Backoff, RetryPolicy, backoff_delay

modest = settings(max_examples=100, deadline=None)
attempts = st.integers(0, 10_000)
bases = st.floats(0, 1e6)


def highest(low: float, high: float) -> float:
    """The jitter at its upper end."""
    assert low == 0.0
    return high


def lowest(low: float, high: float) -> float:
    """The jitter at its lower end."""
    assert low <= high
    return low


# -------------------------------------------------------------------------------------------------- the function


@modest
@given(attempts, bases)
def test_a_delay_lies_between_zero_and_the_capped_exponential(attempt: int, base: float) -> None:
    """Uniform in 0 … min(base · 2^attempt, 30) seconds, for any attempt of a client that fails for weeks."""
    ceiling = min(base * 2 ** min(attempt, 1000), 30.0) if base else 0.0
    assert 0.0 <= backoff_delay(attempt, base) <= ceiling


def test_delays_fill_their_whole_range_evenly() -> None:
    """Full jitter: the quarters of the range are hit about equally often, which spreads a herd out."""
    random.seed(20240517)
    counts = [0, 0, 0, 0]
    for _ in range(4000):
        counts[min(int(backoff_delay(2, 1.0)), 3)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


def test_the_function_is_importable_from_the_transport_and_takes_its_names() -> None:
    """Existing applications import it from there, and call it by position or by name."""
    assert transport.backoff_delay is backoff_delay
    assert backoff_delay(0, 0.0) == backoff_delay(attempt=5, base_delay=0) == 0.0


@pytest.mark.parametrize(
    ("attempt", "base", "ceiling"),
    [(0, 1.0, 1.0), (1, 1.0, 2.0), (4, 1.0, 16.0), (5, 1.0, 30.0), (0, 100.0, 30.0), (3, 0.25, 2.0), (9999, 1e-9, 4.3)],
)
def test_the_ceiling_doubles_until_thirty_seconds(attempt: int, base: float, ceiling: float) -> None:
    """The upper end of the jitter, observed through the policy."""
    delay, _ = Backoff(base, attempt=attempt).next(highest)
    assert delay == pytest.approx(ceiling, rel=0.01)


# --------------------------------------------------------------------------------------------- the endless policy


def test_applying_a_backoff_returns_the_next_and_leaves_the_first_as_it_was() -> None:
    """A reset is using the first policy again."""
    first = Backoff(1.0)
    delays, policy = [], first
    for _ in range(7):
        delay, policy = policy.next(highest)
        delays.append(delay)
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert policy.attempt == 7
    assert first == Backoff(1.0, MAX_DELAY, 0)
    assert first.next(highest)[0] == 1.0


@modest
@given(bases, st.floats(0, 1e3), attempts)
def test_a_backoff_never_exceeds_its_own_cap(base: float, cap: float, attempt: int) -> None:
    """The cap bounds the jitter's upper end; the lower end stays 0."""
    policy = Backoff(base, cap, attempt)
    assert policy.next(lowest)[0] == 0.0
    assert policy.next(highest)[0] <= cap
    assert 0.0 <= policy.next()[0] <= cap


@pytest.mark.parametrize("policy", [Backoff(1.0), RetryPolicy(3, 1.0)])
def test_policies_are_values(policy: Backoff | RetryPolicy) -> None:
    """Nobody can change one that somebody else holds."""
    with pytest.raises(AttributeError):
        policy.attempt = 5  # type: ignore[misc]
    assert policy == type(policy)(*policy)


# --------------------------------------------------------------------------------------------- the bounded policy


@modest
@given(st.integers(0, 12), bases)
def test_exactly_as_many_retries_are_granted_as_were_asked_for(retries: int, base: float) -> None:
    """After that many the policy gives up, with or without a pause that the service asks for."""
    policy = RetryPolicy(retries, base)
    granted = 0
    while (step := policy.next()) is not None:
        delay, policy = step
        assert 0.0 <= delay <= MAX_DELAY
        granted += 1
    assert granted == retries
    assert policy.next(retry_after=1.0) is None


def test_no_retries_are_granted_to_a_negative_count() -> None:
    """A count below 0 counts as none, not as endless."""
    assert RetryPolicy(-1, 1.0).next() is None


@pytest.mark.parametrize(
    ("retry_after", "jitter", "delay"),
    [
        (None, lowest, 0.0),
        (None, highest, 8.0),
        (0.0, highest, 8.0),
        (5.0, lowest, 5.0),
        (5.0, highest, 8.0),
        (60.0, highest, 60.0),
    ],
)
def test_a_pause_that_the_service_asks_for_is_the_least(
    retry_after: float | None, jitter: object, delay: float
) -> None:
    """Never back before ``Retry-After``, and never before the jitter says so."""
    step = RetryPolicy(5, 1.0, attempt=3).next(retry_after, highest if jitter is highest else lowest)
    assert step is not None
    assert step == (delay, RetryPolicy(5, 1.0, attempt=4))


@pytest.mark.parametrize("retry_after", [MAX_RETRY_AFTER + 0.001, 3600.0, 1e12, float("inf")])
def test_a_pause_of_more_than_a_minute_ends_the_retries(retry_after: float) -> None:
    """Coming back early would be against the service's word, waiting that long against the caller's patience."""
    assert RetryPolicy(5, 1.0).next(retry_after) is None
