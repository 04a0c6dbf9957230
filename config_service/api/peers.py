"""Whose request it is when a proxy stands in between: the address in ``X-Forwarded-For``, as far as it can be believed.

Knows addresses and that one header. Whoever is not one of the trusted proxies is the client himself, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from .answers import Scope

Network = IPv4Network | IPv6Network


class Peers:
    """Finds the client behind trusted proxies."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def resolve(self, scope: Scope) -> None:
        """Put the address of the client into ``scope["client"]``, where a trusted proxy names it.

        Every proxy appends the address that it was asked from, so the list is read from its end: the first address that
        is no trusted proxy is the client. What stands before it, the client may have written itself.
        """
        client = scope.get("client")
        if not self._trusted or client is None or not self._is_trusted(client[0]):
            return
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        for part in reversed(b",".join(lines).split(b",")):
            address = part.decode("latin-1").strip()
            try:
                ip_address(address)
            except ValueError:
                return
            scope["client"] = (address, 0)
            if not self._is_trusted(address):
                return

    def _is_trusted(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)


def peer_of(scope: Scope) -> str:
    """Return the address of a request's client, or an empty text where the server knows none."""
    client = scope.get("client")
    return client[0] if client else ""
