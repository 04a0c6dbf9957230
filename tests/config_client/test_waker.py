"""Waking one thread that watches: its pauses, its reads, from other threads and from handlers of signals."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config_client._interrupt import Interrupt
from config_client._waker import Waker

LONG = 30.0
"""Seconds that no test may really take."""


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    """An interrupt that is set at the end, so that no thread of a failed test stays behind."""
    interrupt = Interrupt()
    yield interrupt
    interrupt.set()


@pytest.fixture
def waker(interrupt: Interrupt) -> Waker:
    """A waker under that interrupt."""
    return Waker(interrupt)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    one, other = socket.socketpair()
    with one, other:
        for sock in (one, other):
            sock.settimeout(LONG)
        yield one, other


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads that are joined at the end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


def is_shut_down(sock: socket.socket) -> bool:
    """Tell whether a read of ``sock`` ends at once, with nothing."""
    sock.settimeout(0)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


# --------------------------------------------------------------------------------------------------------- pauses


def test_a_pause_lasts_its_time_when_nobody_wakes(waker: Waker) -> None:
    """False after the seconds are over; negative seconds are none."""
    started = time.monotonic()
    assert waker.wait(0.02) is False
    assert time.monotonic() - started >= 0.019
    assert waker.wait(-1) is False
    assert waker.woken() is False


def test_a_wake_ends_the_pause_under_way(waker: Waker, pool: ThreadPoolExecutor) -> None:
    """From another thread, at once."""
    for _ in range(20):
        waiting = pool.submit(waker.wait, LONG)
        waker.wake()
        assert waiting.result(timeout=60) is True
        assert waker.woken() is True


def test_a_wake_between_two_pauses_ends_the_next(waker: Waker) -> None:
    """It stays until it is taken; several before that are one."""
    waker.wake()
    waker.wake()
    assert waker.wait(LONG) is True
    assert waker.wait(LONG) is True
    assert waker.woken() is True
    assert waker.woken() is False
    assert waker.wait(0.01) is False


def test_a_wake_that_was_taken_early_does_not_shorten_a_later_pause(waker: Waker) -> None:
    """The gate that it opened may still be open; the flags decide."""
    waker.wake()
    waker._woken = False  # as if it was taken between the two steps of the wake
    started = time.monotonic()
    assert waker.wait(0.02) is False
    assert time.monotonic() - started >= 0.019


def test_no_wake_is_lost_among_many(waker: Waker, pool: ThreadPoolExecutor) -> None:
    """Every wake is followed by a pause that ends: the last count that the waking thread has set is seen."""
    rounds, seen, written = 2000, 0, [0]

    def write() -> None:
        for count in range(1, rounds + 1):
            written[0] = count
            waker.wake()

    writing = pool.submit(write)
    while seen < rounds:
        assert waker.wait(LONG) is True
        assert waker.woken() is True
        seen = written[0]
    writing.result(timeout=60)


def test_the_interrupt_ends_a_pause_too(interrupt: Interrupt, waker: Waker, pool: ThreadPoolExecutor) -> None:
    """Of every waker; it is not told as a wake, and none pauses afterwards."""
    other = Waker(interrupt)
    waiting = [pool.submit(each.wait, LONG) for each in (waker, other)]
    interrupt.set()
    assert [each.result(timeout=60) for each in waiting] == [True, True]
    assert waker.woken() is False
    assert waker.wait(LONG) is True
    assert Waker(interrupt).wait(LONG) is True


def test_a_wake_may_come_from_the_handler_of_a_signal(waker: Waker) -> None:
    """On the very thread that pauses, and on one that is inside the waker at that moment."""
    before = signal.signal(signal.SIGUSR1, lambda *_: waker.wake())
    try:
        timer = threading.Timer(0.05, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
        timer.start()
        assert waker.wait(LONG) is True
        timer.join()
        assert waker.woken() is True
        with waker._lock:
            signal.raise_signal(signal.SIGUSR1)
        assert waker.woken() is True
    finally:
        signal.signal(signal.SIGUSR1, before)


# ---------------------------------------------------------------------------------------------------------- reads


def test_a_wake_ends_a_read(waker: Waker, pool: ThreadPoolExecutor, pair: tuple[socket.socket, socket.socket]) -> None:
    """The socket of the stream is shut down; that it was a wake is told afterwards."""
    waker.guard(pair[0])
    reading = pool.submit(pair[0].recv, 1)
    waker.wake()
    assert reading.result(timeout=60) == b""
    assert waker.woken() is True


def test_a_wake_before_the_read_ends_it_as_well(waker: Waker, pair: tuple[socket.socket, socket.socket]) -> None:
    """It came while the stream was being opened."""
    waker.wake()
    waker.guard(pair[0])
    assert is_shut_down(pair[0])


def test_a_patient_read_is_ended_only_by_a_wake_that_cannot_wait(
    waker: Waker, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A wake stays until a read that is not patient, whether it came before the socket or after it."""
    waker.be_patient(True)
    waker.wake()
    waker.guard(pair[0])
    waker.wake()
    assert not is_shut_down(pair[0])
    waker.be_patient(False)
    assert waker.woken() is True
    waker.be_patient(True)
    waker.wake(at_once=True)
    assert is_shut_down(pair[0])


def test_a_released_socket_is_let_be(waker: Waker, pair: tuple[socket.socket, socket.socket]) -> None:
    """And so is one that was never there: a mock, or HTTP/2."""
    waker.guard(pair[0])
    waker.release()
    waker.release()
    waker.wake()
    waker.guard(None)
    assert not is_shut_down(pair[0])


def test_waking_one_thread_leaves_the_others_alone(
    interrupt: Interrupt, waker: Waker, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Each has its own."""
    other = Waker(interrupt)
    other.guard(pair[0])
    waker.wake()
    assert other.wait(0.01) is False
    assert not is_shut_down(pair[0])


def test_an_interrupt_keeps_no_waker_alive(interrupt: Interrupt) -> None:
    """Subscriptions come and go."""
    for _ in range(10):
        Waker(interrupt)
    assert len(interrupt._waiters) == 0
    interrupt.set()


# ----------------------------------------------------------------------------------------------------- after a fork


def test_a_waker_starts_over_with_its_interrupt(
    interrupt: Interrupt, waker: Waker, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Locks that another thread held at the fork are not waited for, and the parent's socket is let be."""
    held, done = threading.Event(), threading.Event()
    interrupt.guard(pair[1])
    waker.guard(pair[0])

    def hold() -> None:
        with waker._lock, interrupt._changed:
            held.set()
            done.wait(LONG)

    holding = threading.Thread(target=hold)
    holding.start()
    assert held.wait(60)
    waker._woken = True
    assert interrupt.abandon() == [pair[1]]
    assert waker.woken() is False
    waker.wake()
    assert waker.wait(LONG) is True
    assert waker.woken() is True
    with interrupt.activity():
        assert not is_shut_down(pair[0])
    interrupt.set()
    assert not is_shut_down(pair[1])
    assert waker.wait(LONG) is True
    done.set()
    holding.join()


def test_a_thread_that_is_inside_at_the_fork_leaves_in_good_order(interrupt: Interrupt) -> None:
    """The fork came from a callback: this thread goes on in the child, the others do not."""
    interrupt._active[-1] = 1
    with interrupt.activity():
        interrupt.abandon()
        assert interrupt.is_busy_here()
        assert interrupt.settle(0) is True
    assert not interrupt.is_busy_here()


def test_what_was_set_before_the_fork_stays_set(interrupt: Interrupt) -> None:
    """A closed client is closed in the child too, and nothing waits."""
    interrupt.set()
    interrupt.abandon()
    assert interrupt.is_set()
    assert interrupt.wait(LONG) is True
    interrupt.set()
