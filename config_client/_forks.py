"""Clients go on in forked children by themselves. Knows ``os.register_at_fork``; nothing of what a client does there.

gunicorn with ``--preload``, multiprocessing's ``fork`` and Celery's prefork pool all run Python's fork handlers.

OpenSSL has locks of its own, and Python lets other threads run while it is inside. A child that is forked at such a
moment gets a lock that nobody will ever release, and hangs at its first handshake. So a fork waits until no thread of
ours is there; none of them waits for anything while it is.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Final, Protocol

_log: Final = logging.getLogger("config_client")


no_fork: Final = threading.RLock()
"""Held by whoever is inside OpenSSL, for as long as computing takes and never while waiting for a peer."""


class Survivor(Protocol):
    """What wants to go on in a child."""

    def _go_on_in_child(self) -> None:
        """Begin anew: no thread but the calling one lives on, and connections are the parent's."""


_survivors: weakref.WeakSet[Survivor] = weakref.WeakSet()


def survive_forks(survivor: Survivor) -> None:
    """Let ``survivor`` begin anew in every child that is forked from now on."""
    _survivors.add(survivor)


def _go_on() -> None:
    for survivor in tuple(_survivors):
        try:
            survivor._go_on_in_child()
        except Exception as error:
            # One that cannot go on must not keep the others from it.
            _log.error("a client cannot go on in this forked child: %s", type(error).__name__)


if hasattr(os, "register_at_fork"):
    # Run in this order after a fork: clients begin anew when the lock is free.
    os.register_at_fork(before=no_fork.acquire, after_in_parent=no_fork.release, after_in_child=no_fork.release)
    os.register_at_fork(after_in_child=_go_on)
