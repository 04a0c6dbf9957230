"""Encrypted configuration with hot reload: the client.

from config_client import ConfigClient

with ConfigClient.from_env() as client:
    print(client.get_raw("orders"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .aio import AsyncConfigClient
    from .client import ConfigClient
    from .errors import (
        ClosedError,
        ConfigClientError,
        ConnectionError,  # noqa: A004 - the published name of this error
        DecryptionError,
        ForbiddenError,
        InvalidResponseError,
        NotFoundError,
        RefusedError,
        UnauthorizedError,
        UnmarshalError,
    )
    from .options import GetOptions, Options
    from .snapshot import Change, Snapshot
    from .status import State, Status
    from .subscription import Subscription
    from .transport import RetryTransport
    from .types import ConfigChangeEvent, ConfigInfo, Format

__all__ = [
    "AsyncConfigClient",
    "Change",
    "ClosedError",
    "ConfigChangeEvent",
    "ConfigClient",
    "ConfigClientError",
    "ConfigInfo",
    "ConnectionError",
    "DecryptionError",
    "ForbiddenError",
    "Format",
    "GetOptions",
    "InvalidResponseError",
    "NotFoundError",
    "Options",
    "RefusedError",
    "RetryTransport",
    "Snapshot",
    "State",
    "Status",
    "Subscription",
    "UnauthorizedError",
    "UnmarshalError",
]

_HOMES = {
    "aio": ("AsyncConfigClient",),
    "client": ("ConfigClient",),
    "options": ("GetOptions", "Options"),
    "snapshot": ("Change", "Snapshot"),
    "status": ("State", "Status"),
    "subscription": ("Subscription",),
    "transport": ("RetryTransport",),
    "types": ("ConfigChangeEvent", "ConfigInfo", "Format"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: no program waits at its start for what it does not use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    home = next((home for home, names in _HOMES.items() if name in names), "errors")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
