"""One line in the log for every request, when its answer is complete.

Knows exchanges. Knows no path: a path may hold a secret that somebody pasted into it, so the template of the route is
logged in its place. Nor query, nor headers.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from ..logs import Fields, handle_event
from .exchange import Exchange

_access = logging.getLogger("config_service.access")
_LINE: Final = "%s %s %s %.6f s, %d bytes, token %s, from %s"


def log_access(exchange: Exchange) -> None:
    """Log ``exchange``, whose answer is complete; one that has given its connection to a stream is complete then."""
    if not _access.isEnabledFor(logging.INFO):
        return
    told = (
        exchange.method,
        exchange.route or "-",
        exchange.status or "-",
        exchange.seconds,
        exchange.body_bytes,
        "-" if exchange.token_id is None else exchange.token_id,
        exchange.origin.address or "-",
    )
    handle_event(_access, logging.INFO, "request", _LINE, told, partial(_fields, exchange))


def _fields(exchange: Exchange) -> Fields:
    return {
        "method": exchange.method,
        "route": exchange.route or None,
        "status": exchange.status or None,
        "error": exchange.code or None,
        "duration_seconds": round(exchange.seconds, 6),
        "bytes": exchange.body_bytes,
        "token_id": exchange.token_id,
    }
