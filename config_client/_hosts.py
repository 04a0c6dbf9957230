"""The URLs that a service is reached at, and which of them to ask first. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import httpx

from .errors import ConfigClientError
from .protocol import is_host

_PORTS: Final = {"http": 80, "https": 443}


def base_url(host: str) -> httpx.URL:
    """Return ``host`` as a URL. Raises ConfigClientError."""
    try:
        url = httpx.URL(host)
        # httpx decodes international names as late as here.
        if is_host(host) and url.host:
            return url
    except (httpx.InvalidURL, UnicodeError):
        pass
    raise ConfigClientError("host is not a URL such as https://config.example.com")


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Return what decides whether two URLs lead to the same place: scheme, host and port."""
    # httpx drops a default port, but not after a scheme in capitals.
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def place_of(url: httpx.URL) -> str:
    """Return the origin of ``url`` as errors name it, without path and query."""
    return f"{url.scheme}://{url.netloc.decode()}"


class Hosts:
    """The hosts in order, and the one that answered last.

    That one is asked first until it fails; then the order begins at the first again. Shared by all threads without a
    lock: the worst that a race costs is one attempt at a host that is down.

    Raises ConfigClientError when one of them is no URL, or when there is none.
    """

    def __init__(self, given: str | Sequence[str]) -> None:
        parts = given.split(",") if isinstance(given, str) else list(given)
        if len(parts) > 1:
            parts = [part.strip() for part in parts]
        self.texts: Final = tuple(part.rstrip("/") for part in parts)
        self.urls: Final = tuple(map(base_url, self.texts))
        if not self.urls:
            raise ConfigClientError("host is empty: give at least one URL of the service")
        self._preferred = 0

    def __str__(self) -> str:
        return ",".join(map(str, self.urls))

    @property
    def preferred(self) -> int:
        """The index of the host to ask first."""
        return self._preferred

    def order(self) -> tuple[int, ...]:
        """Return the indexes of all hosts in the order in which to ask them now."""
        first = self._preferred
        return (first, *(index for index in range(len(self.urls)) if index != first))

    def answered(self, index: int) -> None:
        """Ask this host first from now on."""
        self._preferred = index

    def failed(self, index: int) -> None:
        """Begin at the first again, if this was the one that is asked first."""
        if self._preferred == index:
            self._preferred = 0
