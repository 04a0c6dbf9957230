"""The bound on what a thread waits for in all: what is left of it, nesting, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace

import pytest

from config_client import _deadline
from config_client._deadline import remaining, within


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still."""
    now = [100.0]
    monkeypatch.setattr(_deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("timeout", [None, 0.0, 5.0])
def test_without_a_bound_a_timeout_is_what_it_is(timeout: float | None) -> None:
    """None means no limit, here as in httpcore."""
    assert remaining(timeout) == timeout


def test_a_bound_shortens_what_would_end_after_it(now: list[float]) -> None:
    """The nearer of the two counts, and when the bound is past, nothing is left."""
    with within(10):
        assert (remaining(None), remaining(3), remaining(30)) == (10, 3, 10)
        now[0] = 109
        assert (remaining(None), remaining(3), remaining(0.5)) == (1, 1, 0.5)
        now[0] = 120
        assert (remaining(None), remaining(3)) == (0, 0)
    assert remaining(None) is None


def test_a_bound_within_a_bound_never_extends_it(now: list[float]) -> None:
    """And the outer one is back when the inner one is left, by an error too."""
    with within(10):
        with within(50):
            assert remaining(None) == 10
        with suppress(ZeroDivisionError), within(2):
            assert remaining(None) == 2
            raise ZeroDivisionError
        assert remaining(None) == 10


def test_a_bound_is_the_business_of_its_thread(now: list[float]) -> None:
    """Another thread's reads are not shortened."""
    with within(10), ThreadPoolExecutor(1) as pool:
        assert pool.submit(remaining, 30).result() == 30
