"""Looking at what other processes have committed before a request is answered, where memory may be a moment behind.

Knows which requests need it. Reads of configs do not: they are answered from memory, and a client that has heard of a
revision names it. An operator does, who published through one process and looks through another; and so does a token
that another process created a moment ago.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from config_client.protocol import SERVICE_PATH

from ..domain.errors import ServiceError
from ..operations import Operations
from .answers import Scope
from .requests import secret_of

_SERVICE: Final = f"{SERVICE_PATH}/".encode()


async def refresh_for(operations: Operations, scope: Scope) -> None:
    """Return when what is in memory will do for the request of ``scope``, or cannot be made newer.

    A store that cannot be read is told by what needs it; the rest is answered from memory. However many requests come,
    with whatever secrets, one look at the store is under way at a time.
    """
    with suppress(ServiceError):
        secret = secret_of(scope["headers"])
        if not scope["raw_path"].startswith(_SERVICE) or not operations.knows(secret):
            await operations.hear()
