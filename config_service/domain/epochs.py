"""Epochs of a store's history: when a new one begins. Pure.

An epoch is 24 hex characters: 48 bits of milliseconds since 1970 and 48 random bits. Positions order by it, and
clients refuse an earlier one; so a history that continues another one must begin later than all of it.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta, timezone
from typing import Final

from .errors import InvalidRequestError

_EPOCH: Final = re.compile(r"[0-9a-f]{24}\Z")
_START: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def later_epoch(now: datetime, *known: str) -> str:
    """Return an epoch that begins at ``now``, or a millisecond after the latest of ``known`` if that is later.

    Raises InvalidRequestError when one of ``known`` is no epoch, or is the last that there can be.
    """
    began = (now - _START) // timedelta(milliseconds=1)
    for epoch in known:
        if not _EPOCH.match(epoch):
            raise InvalidRequestError("an epoch is 24 hex characters, as in the header X-Config-Epoch")
        began = max(began, int(epoch[:12], 16) + 1)
    if began >= 2**48:
        raise InvalidRequestError("no epoch can be later than the ones known: is one of them mistyped?")
    return f"{began:012x}{secrets.token_hex(6)}"
