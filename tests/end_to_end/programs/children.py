"""Processes of multiprocessing that serve what their parent had subscribed to, and one that was spawned.

``children.py fork|spawn|nested COUNT``: the children tell what they hold at once, and every change, until standard
input ends. A nested child forks a child of its own.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.synchronize import Event

from lines import tell

from config_client import Change, ConfigClient, Subscription

client: ConfigClient | None = None
orders: Subscription[dict[str, object]] | None = None


def subscribed() -> tuple[ConfigClient, Subscription[dict[str, object]]]:
    """Return the subscription that was inherited, or, in a process that inherits nothing, one of its own."""
    global client, orders  # noqa: PLW0603 - what a module of an application does
    if client is None or orders is None:
        client = ConfigClient.from_env()
        orders = client.subscribe("orders", dict)
    return client, orders


def told(change: Change[dict[str, object]]) -> None:
    """Tell of a change."""
    tell("change", version=change.version, value=change.new)


def serve(over: Event, depth: int) -> None:
    """Tell what is held until it is over."""
    own, config = subscribed()
    tell("forked", version=config.snapshot.version, depth=depth)
    below = None
    if depth > 1:
        below = multiprocessing.get_context("fork").Process(target=serve, args=(over, depth - 1))
        below.start()
    over.wait()
    if below is not None:
        below.join()
    before = time.monotonic()
    own.close()
    tell("closed", seconds=time.monotonic() - before)


def main(how: str, count: int) -> int:
    """Run the children until standard input ends; return how many of them did not end well."""
    own, config = subscribed()
    config.on_change(told)
    context = multiprocessing.get_context("spawn" if how == "spawn" else "fork")
    tell("ready", version=config.snapshot.version)
    sys.stdin.readline()
    # An event for each: setting one waits for whoever waits for it, and a child may have been killed.
    events = [context.Event() for _ in range(count)]
    children = [context.Process(target=serve, args=(over, 2 if how == "nested" else 1)) for over in events]
    for child in children:
        child.start()
    sys.stdin.read()
    for over, child in zip(events, children, strict=True):
        if child.is_alive():
            over.set()
        child.join()
    tell("master", version=config.snapshot.version)
    own.close()
    tell("closed")
    return sum(child.exitcode != 0 for child in children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
