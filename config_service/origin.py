"""Where the work at hand comes from: the id of the request, and the address of who sent it.

Knows a context variable. Knows nothing of HTTP: the edge of the application sets it, and logs, traces and the audit
read it. It follows tasks that a request starts (``asyncio.create_task`` copies it), but not work on other threads:
take ``current()`` before handing work over.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Final, NamedTuple


class Origin(NamedTuple):
    """What is known of where a piece of work comes from. Holds no secret."""

    request_id: str
    """At most 40 of the characters ``A-Z a-z 0-9 . _ : -``; empty when no request is the cause."""
    address: str
    """The address of the client, as far as it is known, without a port; else empty."""


INTERNAL: Final = Origin("", "")
"""The origin of what the service does by itself."""
_current: Final[ContextVar[Origin]] = ContextVar("config_service.origin", default=INTERNAL)


def current() -> Origin:
    """Return the origin of the work at hand; ``INTERNAL`` outside of requests."""
    return _current.get()


def enter(origin: Origin) -> Token[Origin]:
    """Let ``origin`` be the current one until ``leave`` is called with what this returns."""
    return _current.set(origin)


def leave(entered: Token[Origin]) -> None:
    """Let the origin be current again that was before ``enter``."""
    _current.reset(entered)
