"""Forks at awkward moments: in a callback, while other threads hold every lock, while a value is being proved.

``odd_forks.py callback|locks|proof|async``: what the child holds, and what it comes to hold, is told on standard
output. The child ends by itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from lines import tell

from config_client import AsyncConfigClient, Change, ConfigClient, Options, Snapshot

PATIENCE = 60.0


def wait_for(snapshot: Snapshot[Any], version: int) -> None:
    """Tell whether ``version`` comes."""
    tell("forked", version=snapshot.version)
    came = snapshot.wait_for(version, PATIENCE)
    tell("child", came=came, version=snapshot.version, value=snapshot.load())


def leave(client: ConfigClient) -> None:
    """Close, tell how long it took, and end this child without the parent's clean-up."""
    before = time.monotonic()
    client.close()
    tell("closed", seconds=time.monotonic() - before)
    os._exit(0)


def end_of(child: int) -> None:
    """Wait for the child."""
    tell("ended", status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def in_a_callback() -> None:
    """Version 2 makes the watching thread fork; the child waits for version 3 in the middle of that callback."""
    forked = threading.Event()
    pids: list[int] = []

    def fork(change: Change[dict[str, object]]) -> None:
        if change.version != 2:
            return
        pids.append(os.fork())
        if pids[0] == 0:
            wait_for(orders.snapshot, 3)
            leave(client)
        forked.set()

    with ConfigClient.from_env() as client:
        orders = client.subscribe("orders", dict)
        orders.on_change(fork)
        tell("ready", version=orders.snapshot.version)
        forked.wait(PATIENCE)
        tell("parent", version=orders.snapshot.version)
        end_of(pids[0])
        tell("parent", came=orders.wait_for(3, PATIENCE), version=orders.snapshot.version)


@contextmanager
def held(locks: list[Any]) -> Iterator[None]:
    """Let another thread hold ``locks`` meanwhile."""
    holds, over = threading.Event(), threading.Event()

    def hold() -> None:
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            holds.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(PATIENCE)
    try:
        yield
    finally:
        over.set()
        thread.join()


def with_locks_held() -> None:
    """Another thread holds the locks of the client, its session, its keepers, its snapshots and its connections."""
    with ConfigClient.from_env() as client:
        orders = client.subscribe("orders", dict)
        tell("ready", version=orders.snapshot.version)
        sys.stdin.readline()
        session = client._session
        assert session is not None
        locks = [client._making, session._lock, orders._keeper._lock, orders.snapshot._lock]
        driver, own = session._driver, client._transport._own
        assert driver is not None
        assert own is not None
        network = own.client(0)._transport
        assert isinstance(network, httpx.HTTPTransport)
        locks += [client._transport.interrupt._changed, driver._waker._lock, network._pool._optional_thread_lock]
        with held(locks):
            child = os.fork()
            if child == 0:
                wait_for(orders.snapshot, 2)
                leave(client)
        end_of(child)
        tell("parent", came=orders.wait_for(2, PATIENCE), version=orders.snapshot.version)


def while_a_value_is_proved() -> None:
    """The parent is busy proving version 2 when it forks: the child has to get it by itself."""
    proving, over = threading.Event(), threading.Event()
    parent = os.getpid()

    def prove(value: dict[str, object]) -> bool:
        if value["n"] == 2 and os.getpid() == parent:
            proving.set()
            over.wait(PATIENCE)
        return True

    with ConfigClient.from_env() as client:
        orders = client.subscribe("orders", dict, pre_apply=prove)
        tell("ready", version=orders.snapshot.version)
        assert proving.wait(PATIENCE)
        child = os.fork()
        if child == 0:
            wait_for(orders.snapshot, 2)
            leave(client)
        end_of(child)
        over.set()
        tell("parent", came=orders.wait_for(2, PATIENCE), version=orders.snapshot.version)


def between_two_runs_of_a_loop() -> None:
    """An AsyncConfigClient goes on in the child when it is told to, on the child's own event loop."""
    environment = [os.environ[f"CONFIG_SERVICE_{name}"] for name in ("HOST", "TOKEN", "KEY")]
    client = AsyncConfigClient(Options(*environment, cache=False))
    with asyncio.Runner() as runner:
        orders = runner.run(client.subscribe("orders", dict))
        tell("ready", version=orders.snapshot.version)
        sys.stdin.readline()
        child = os.fork()
        if child == 0:
            asyncio.run(_go_on(client, orders.snapshot))
            os._exit(0)
        end_of(child)
        came = runner.run(asyncio.to_thread(orders.wait_for, 2, PATIENCE))
        tell("parent", came=came, version=orders.snapshot.version)
        runner.run(client.close())


async def _go_on(client: AsyncConfigClient, snapshot: Snapshot[Any]) -> None:
    await client.resume()
    await asyncio.to_thread(wait_for, snapshot, 2)
    before = time.monotonic()
    await client.close()
    tell("closed", seconds=time.monotonic() - before)


if __name__ == "__main__":
    {
        "callback": in_a_callback,
        "locks": with_locks_held,
        "proof": while_a_value_is_proved,
        "async": between_two_runs_of_a_loop,
    }[sys.argv[1]]()
