"""The failures that a test asks the in-memory service for: which requests are refused, with what, and how often.

Knows statuses and paths. Knows nothing of sockets; its caller holds the lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..protocol import WATCH_PATH
from ._faults import MisuseError, Refusal
from ._http import Request

Route = Literal["get", "watch"]
"""What a failure is for: everything that is answered at once, or the streams."""


@dataclass(slots=True)
class Failure:
    """How requests are refused; ``left`` None: until told otherwise."""

    status: int
    left: int | None
    route: Route | None
    retry_after: float | None

    def meet(self, request: Request) -> None:
        """Raise the Refusal of ``request``, and count it, unless it is not one of those that fail."""
        watches = request.path == WATCH_PATH.encode() or request.path.endswith(b"/watch")
        if self.left == 0 or self.route not in {None, "watch" if watches else "get"}:
            return
        if self.left is not None:
            self.left -= 1
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:.0f}"}
        raise Refusal(self.status, "the test asked the in-memory service to fail", headers=headers)


def failure(status: int | None, times: int | None, route: Route | None, retry_after: float | None) -> Failure | None:
    """Return the failure that ``InMemoryService.fail`` is asked for, or None for no failure. Raises MisuseError."""
    if status is not None and not 400 <= status <= 599:
        raise MisuseError(f"status {status}: a failure is 400 to 599, or None for no failure any more")
    if times is not None and times < 1:
        raise MisuseError(f"times {times}: 1 or more, or None for every request until fail(None)")
    if route not in {None, "get", "watch"}:
        raise MisuseError(f'for_ {route!r}: "get", "watch" or None for both')
    if retry_after is not None and not (retry_after >= 0 and retry_after % 1 == 0):
        raise MisuseError(f"retry_after {retry_after}: whole seconds (RFC 9110, 10.2.3); anything else is ignored")
    return None if status is None else Failure(status, times, route, retry_after)
