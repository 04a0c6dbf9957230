"""The flag that ends every wait: pauses, guarded sockets, and the count of threads that are still busy."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config_client._interrupt import Interrupt

LONG = 30.0
"""Seconds that no test may really take."""


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    """An interrupt that is set at the end, so that no thread of a failed test stays behind."""
    interrupt = Interrupt()
    yield interrupt
    interrupt.set()


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
    with ThreadPoolExecutor(8) as pool:
        yield pool


def is_shut_down(sock: socket.socket) -> bool:
    """Tell whether a read of ``sock`` ends at once, with nothing."""
    sock.settimeout(0)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


# ------------------------------------------------------------------------------------------------------- pauses


def test_a_pause_lasts_its_time_and_tells_that_nothing_interrupted_it(interrupt: Interrupt) -> None:
    """False after the seconds are over."""
    started = time.monotonic()
    assert interrupt.wait(0.02) is False
    assert time.monotonic() - started >= 0.019
    assert not interrupt.is_set()


def test_setting_ends_a_pause_at_once(interrupt: Interrupt, pool: ThreadPoolExecutor) -> None:
    """Every thread that waits is told, whichever came first."""
    waiting = [pool.submit(interrupt.wait, LONG) for _ in range(4)]
    started = time.monotonic()
    interrupt.set()
    assert [each.result(timeout=60) for each in waiting] == [True] * 4
    assert time.monotonic() - started < 1


def test_there_is_no_pause_once_it_is_set(interrupt: Interrupt) -> None:
    """Set is set, and setting it twice is no different."""
    interrupt.set()
    interrupt.set()
    assert interrupt.is_set()
    assert interrupt.wait(LONG) is True


# ------------------------------------------------------------------------------------------------------ sockets


def test_setting_wakes_a_blocked_read(
    interrupt: Interrupt, pool: ThreadPoolExecutor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Closing the socket would not; shutting it down does."""
    one, _ = pair
    interrupt.guard(one)
    started = threading.Event()

    def read() -> bytes:
        started.set()
        return one.recv(1)

    reading = pool.submit(read)
    assert started.wait(60)
    interrupt.set()
    assert reading.result(timeout=60) == b""


def test_a_socket_guarded_too_late_is_shut_down_at_once(
    interrupt: Interrupt, pair: tuple[socket.socket, socket.socket]
) -> None:
    """No connection slips through between the setting and the guarding."""
    interrupt.set()
    assert not is_shut_down(pair[0])
    interrupt.guard(pair[0])
    assert is_shut_down(pair[0])


def test_a_released_socket_is_let_be(interrupt: Interrupt, pair: tuple[socket.socket, socket.socket]) -> None:
    """A connection that went back to its owner serves the owner's other requests."""
    one, other = pair
    interrupt.guard(one)
    interrupt.release(one)
    interrupt.release(one)
    interrupt.set()
    assert not is_shut_down(one)
    other.sendall(b"x")
    assert one.recv(1) == b"x"


def test_a_closed_socket_is_no_obstacle(interrupt: Interrupt, pair: tuple[socket.socket, socket.socket]) -> None:
    """It was closed between its guarding and the setting; the others are shut down all the same."""
    closed, _ = socket.socketpair()
    with closed, _:
        interrupt.guard(closed)
    interrupt.guard(pair[0])
    interrupt.set()
    interrupt.guard(closed)
    assert is_shut_down(pair[0])


def test_a_socket_that_was_never_connected_is_no_obstacle(interrupt: Interrupt) -> None:
    """Shutting it down fails; nobody is told."""
    with socket.socket() as sock:
        interrupt.guard(sock)
        interrupt.set()


def test_guarding_keeps_no_socket_alive(interrupt: Interrupt) -> None:
    """A client that connects ten thousand times holds on to none of its past connections."""
    references = []
    for _ in range(20):
        one, other = socket.socketpair()
        interrupt.guard(one)
        one.close()
        other.close()
        references.append(weakref.ref(one))
    del one, other
    gc.collect()
    assert [reference() for reference in references] == [None] * 20


def test_guarding_from_many_threads_while_it_is_set_shuts_every_socket_down(pool: ThreadPoolExecutor) -> None:
    """Whichever comes first, guarding or setting: afterwards every socket is shut down."""
    for _ in range(25):
        interrupt, gate = Interrupt(), threading.Barrier(5)
        pairs = [socket.socketpair() for _ in range(4)]

        def guard(sock: socket.socket, gate: threading.Barrier = gate, interrupt: Interrupt = interrupt) -> None:
            gate.wait(60)
            interrupt.guard(sock)

        guarding = [pool.submit(guard, one) for one, _ in pairs]
        gate.wait(60)
        interrupt.set()
        for each in guarding:
            each.result(timeout=60)
        shut = [is_shut_down(one) for one, _ in pairs]
        for one, other in pairs:
            one.close()
            other.close()
        assert shut == [True] * 4


# ------------------------------------------------------------------------------------------------ busy threads


def test_an_idle_interrupt_is_settled_at_once(interrupt: Interrupt) -> None:
    """Nobody is busy, so there is nothing to wait for."""
    assert interrupt.settle(LONG) is True
    assert interrupt.settle(0) is True
    assert interrupt.settle(-1) is True


def test_the_calling_thread_does_not_wait_for_itself(interrupt: Interrupt) -> None:
    """Closing from within a callback must not wait for the watch that called it."""
    with interrupt.activity(), interrupt.activity():
        assert interrupt.settle(LONG) is True


def test_settling_waits_until_the_outermost_activity_of_every_thread_ends(
    interrupt: Interrupt, pool: ThreadPoolExecutor
) -> None:
    """Nested activities of one thread count as one, which ends with the outermost."""
    entered, leave = threading.Semaphore(0), threading.Event()
    left: list[float] = []

    def busy() -> None:
        with interrupt.activity():
            with interrupt.activity():
                pass
            entered.release()
            assert leave.wait(60)
            left.append(time.monotonic())

    threads = [pool.submit(busy) for _ in range(3)]
    for _ in threads:
        assert entered.acquire(timeout=60)
    assert interrupt.settle(0.01) is False
    assert interrupt.settle(0) is False
    settling = pool.submit(interrupt.settle, LONG)
    leave.set()
    assert settling.result(timeout=60) is True
    assert len(left) == 3
    for thread in threads:
        thread.result(timeout=60)


def test_an_activity_that_fails_is_over(interrupt: Interrupt, pool: ThreadPoolExecutor) -> None:
    """The error passes through, and nobody waits for the thread any more."""

    def fail() -> None:
        with interrupt.activity():
            raise ZeroDivisionError

    failing = pool.submit(fail)
    with pytest.raises(ZeroDivisionError):
        failing.result(timeout=60)
    assert interrupt.settle(0) is True


def test_an_activity_begun_on_one_thread_may_end_on_another(interrupt: Interrupt, pool: ThreadPoolExecutor) -> None:
    """A stream that is handed over does not leave its first thread counted as busy for ever."""
    activity = interrupt.activity()
    activity.__enter__()
    assert pool.submit(interrupt.settle, 0).result(timeout=60) is False
    pool.submit(activity.__exit__, None, None, None).result(timeout=60)
    assert pool.submit(interrupt.settle, 0).result(timeout=60) is True


def test_settling_does_not_need_the_flag(interrupt: Interrupt) -> None:
    """The two are independent: settling sets nothing."""
    assert interrupt.settle(0) is True
    assert not interrupt.is_set()
