"""Encrypted configuration with hot reload: the client.

from config_client import ConfigClient

with ConfigClient.from_env() as client:
    print(client.get_raw("orders"))
"""

from .client import ConfigClient
from .errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the published name of this error
    DecryptionError,
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
    UnmarshalError,
)
from .options import GetOptions, Options
from .snapshot import Change, Snapshot
from .transport import RetryTransport
from .types import ConfigChangeEvent, ConfigInfo, Format

__all__ = [
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
    "RetryTransport",
    "Snapshot",
    "UnauthorizedError",
    "UnmarshalError",
]
