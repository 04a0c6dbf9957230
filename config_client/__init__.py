"""Encrypted configuration with hot reload: the client.

from config_client import ConfigClient

with ConfigClient.from_env() as client:
    print(client.get_raw("orders"))
"""

from typing import TYPE_CHECKING

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
from .transport import RetryTransport
from .types import ConfigChangeEvent, ConfigInfo, Format

if TYPE_CHECKING:
    from .aio import AsyncConfigClient
    from .subscription import Subscription

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


def __getattr__(name: str) -> object:
    """Load what only some programs use when it is first asked for: the start of the others is not to wait for it."""
    if name == "AsyncConfigClient":
        from .aio import AsyncConfigClient  # noqa: PLC0415

        return AsyncConfigClient
    if name == "Subscription":
        from .subscription import Subscription  # noqa: PLC0415

        return Subscription
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
