"""The httpx clients that a transport owns: one per way to a host, made again after a fork; and requests for them.

Knows httpx and the environment's proxies. Knows nothing of what is asked, nor of the protocol.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import httpx

from ._environment import network, way_to
from ._interrupt import Interrupt
from ._network import InterruptibleTransport

_inherited: Final[list[object]] = []
"""What a forked child must not let go: freeing it might wait for a lock that was held at the fork."""

_NOTHING: Final = httpx.ByteStream(b"")
_parsed: Final = lru_cache(maxsize=64)(httpx.URL)
"""The few URLs that a program asks for, each parsed once. They hold no secret."""


class OwnClients:
    """Clients for ``urls``, of which those that share proxy and scheme share a client and its connections.

    Raises ConfigClientError when the proxy or the certificates that the environment names cannot be used.
    """

    def __init__(self, urls: Sequence[httpx.URL], interrupt: Interrupt, timeout: float) -> None:
        self._urls = urls
        self._interrupt = interrupt
        self._timeout = timeout
        self._extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
        self._making = threading.Lock()
        self._clients: tuple[httpx.Client, ...] = self._made()

    def client(self, index: int) -> httpx.Client:
        """Return the client for the host of this index. Raises ConfigClientError, after a fork alone."""
        if not self._clients:
            with self._making:
                self._clients = self._clients or self._made()
        return self._clients[index]

    def request(self, index: int, url: str, headers: Mapping[str, str]) -> httpx.Request:
        """Return a GET as ``build_request`` of the client for this host would make it, at a fraction of the cost.

        These clients differ from httpx's defaults in nothing that a request shows. Raises httpx.InvalidURL.
        """
        client, target = self.client(index), _parsed(url)
        named = {name.lower().encode() for name in headers}
        given = [(name.encode(), value.encode()) for name, value in headers.items()]
        usual = [header for header in client.headers.raw if header[0].lower() not in named]
        return httpx.Request(
            "GET",
            target,
            headers=httpx.Headers([(b"Host", target.netloc), *usual, *given]),
            cookies=client.cookies or None,
            stream=_NOTHING,
            extensions=self._extensions,
        )

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients:
            client.close()

    def abandon(self) -> None:
        """Forget the parent's connections in a forked child; the first request there makes clients anew."""
        _inherited.append(self._clients)
        for client in self._clients:
            network = client._transport
            if isinstance(network, InterruptibleTransport):
                network.abandon()
        self._clients = ()
        self._making = threading.Lock()

    def _made(self) -> tuple[httpx.Client, ...]:
        made: dict[tuple[bool, str | None], httpx.Client] = {}
        ways = [way_to(url) for url in self._urls]
        for url, way in zip(self._urls, ways, strict=True):
            if way not in made:
                made[way] = httpx.Client(
                    transport=network(url, self._interrupt), trust_env=False, timeout=self._timeout
                )
        return tuple(made[way] for way in ways)
