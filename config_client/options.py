"""What an application tells the client: where, as whom, under which key, and how patiently.

Validates itself and does no I/O.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .crypto import parse_encryption_keys
from .errors import ConfigClientError, ForbiddenError, NotFoundError, UnauthorizedError
from .protocol import is_environment, is_host, is_label, is_token

if TYPE_CHECKING:
    import httpx

    from .metrics import Metrics

DEFAULT_FINAL_ERRORS: Final[tuple[type[ConfigClientError], ...]] = (UnauthorizedError, ForbiddenError, NotFoundError)

MAX_SECONDS: Final = 86_400.0 * 365
"""Seconds; a longer time is a mistake, and far longer ones overflow the timers of the operating system."""


@dataclass
class Options:
    """How to reach the service.

    ``host``: URL of the service, ``http://`` or ``https://``, a path prefix allowed; several, comma-separated, are
    tried in order. ``service_token``: the token's secret. ``encryption_key``: 64 hex characters; several keys,
    comma-separated, while a rotation is under way. ``http_client``: a caller-owned client, never closed by this
    package; an ``httpx.Client`` for ConfigClient, an ``httpx.AsyncClient`` for AsyncConfigClient.

    ``request_timeout``: seconds per request. ``retry_count``: further attempts of a request after a 5xx, 408, 429 or a
    network error. ``retry_delay``: base seconds of the exponential backoff with full jitter, of requests and watches.

    ``on_error(exception)`` is called for every error of a watch, ``on_change(config_name)`` for every change it
    hears of; neither stops the watch, even when it raises.

    ``max_retry_delay``: upper bound in seconds of the pause between two attempts to watch. ``heartbeat_interval``:
    seconds between heartbeats of a service that does not announce them; three missed mean that the stream is dead.
    ``final_errors``: the errors that end a watch; a NotFoundError ends it only while nothing was ever found.
    ``poll_interval``: seconds, jittered, between two looks at every config while no stream can be had; a look is taken
    at the first attempt to open a stream after that time.

    ``reload_keys()`` returns the keys anew, as ``encryption_key`` spells them; it is called when a payload is sealed
    under a key that is not held, on the thread or event loop that needs it, so it should answer quickly.
    ``require_bound``: refuse sealed format 1, which is not bound to name and revision.

    ``cache``: keep the last good value of every subscription on disk, sealed, for a start while the service is down;
    in ``cache_directory`` (None: the user's cache directory), for ``cache_max_age`` seconds. ``metrics``: what to
    tell of values, failures and states (see ``config_client.metrics``).

    Raises ConfigClientError when a value cannot work. The repr shows neither token nor key.
    """

    host: str
    service_token: str = field(repr=False)
    encryption_key: str = field(repr=False)
    http_client: httpx.Client | httpx.AsyncClient | None = field(default=None, repr=False)
    request_timeout: float = 10.0
    retry_count: int = 3
    retry_delay: float = 1.0
    on_error: Callable[[Exception], object] | None = field(default=None, repr=False)
    on_change: Callable[[str], object] | None = field(default=None, repr=False)
    max_retry_delay: float = 30.0
    heartbeat_interval: float = 5.0
    final_errors: tuple[type[ConfigClientError], ...] = DEFAULT_FINAL_ERRORS
    poll_interval: float = 30.0
    reload_keys: Callable[[], str] | None = field(default=None, repr=False)
    require_bound: bool = False
    cache: bool = True
    cache_directory: str | os.PathLike[str] | None = None
    cache_max_age: float = 7 * 86_400.0
    metrics: Metrics | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("host", "service_token", "encryption_key"):
            if not isinstance(getattr(self, name), str):
                raise ConfigClientError(f"{name} must be text (str), not {type(getattr(self, name)).__name__}")
        if not self.host:
            raise ConfigClientError("host is empty: give the URL of the service, such as http://localhost:8080")
        if not all(map(is_host, self.hosts)):
            raise ConfigClientError(
                "host must be a URL such as https://config.example.com: http or https, a host, optionally a port and "
                "a path, and neither user name, query nor fragment; several are separated by commas"
            )
        if not self.service_token:
            raise ConfigClientError("service_token is empty: give the secret of a token of the service")
        if not is_token(self.service_token):
            raise ConfigClientError("service_token holds a character that no HTTP header can carry (a line break?)")
        parse_encryption_keys(self.encryption_key)
        for name in ("request_timeout", "max_retry_delay", "heartbeat_interval", "poll_interval", "cache_max_age"):
            _check_seconds(name, getattr(self, name), minimum_excluded=True)
        _check_seconds("retry_delay", self.retry_delay, minimum_excluded=False)
        if isinstance(self.retry_count, bool) or not isinstance(self.retry_count, int) or self.retry_count < 0:
            raise ConfigClientError("retry_count must be a whole number, 0 or more")

    @property
    def hosts(self) -> tuple[str, ...]:
        """The URLs of the service, in the order in which they are tried."""
        parts = self.host.split(",")
        return tuple(part.strip() for part in parts) if len(parts) > 1 else (self.host,)


@dataclass(frozen=True)
class GetOptions:
    """Which config exactly. Empty texts and version 0 mean: not named, the service's defaults apply."""

    environment: str = ""
    version: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        if self.environment and not is_environment(self.environment):
            raise ConfigClientError(
                "environment must be 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit"
            )
        if self.label and not is_label(self.label):
            raise ConfigClientError("label must be 1 to 128 of A-Z a-z 0-9 . _ - / beginning with a letter or digit")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 0:
            raise ConfigClientError("version must be a whole number, 1 or more (0: the running one)")

    def query(self) -> dict[str, str]:
        """Return the query parameters, without those that are empty or 0."""
        named = {"environment": self.environment, "version": str(self.version or ""), "label": self.label}
        return {name: value for name, value in named.items() if value}


def _check_seconds(name: str, value: float, *, minimum_excluded: bool) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= MAX_SECONDS or (minimum_excluded and value == 0):
        raise ConfigClientError(
            f"{name} must be a number of seconds {'above 0' if minimum_excluded else 'of 0 or more'}, at most a year"
        )
