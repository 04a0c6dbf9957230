"""What the URL and the process's environment decide about the network of a client: proxy and certificates.

Knows the environment variables that httpx knows, and turns a wrong one into this package's error. Sends nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from ._forks import no_fork
from ._interrupt import Interrupt
from ._network import InterruptibleTransport
from .errors import ConfigClientError

N = TypeVar("N")


def network(url: httpx.URL, interrupt: Interrupt) -> InterruptibleTransport:
    """Return a transport to ``url`` that ``interrupt`` ends. Raises as ``equipped`` does."""
    return equipped(url, lambda tls, proxy: InterruptibleTransport(interrupt, verify=tls, proxy=proxy))


def equipped(url: httpx.URL, make: Callable[[ssl.SSLContext, str | None], N]) -> N:
    """Return what ``make`` makes of the trust and the proxy that the environment names for ``url``.

    Raises ConfigClientError when either cannot be used.
    """
    try:
        return make(_tls_context(url), _proxy(url))
    except OSError as error:
        fault = f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be loaded ({type(error).__name__})"
    except (ValueError, ImportError, httpx.InvalidURL):
        # Their texts may spell the URL, and a proxy's URL may hold a password.
        fault = "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used (socks: install httpx[socks])"
    raise ConfigClientError(fault)


def way_to(url: httpx.URL) -> tuple[bool, str | None]:
    """Return what the networks to two URLs must have in common to be one: TLS, and the proxy (with its password)."""
    return url.scheme == "https", _proxy(url)


def _tls_context(url: httpx.URL) -> ssl.SSLContext:
    """Return the TLS settings for ``url``: httpx's own; for plain HTTP an empty context, which trusts nobody."""
    with no_fork:
        return httpx.create_ssl_context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for ``url``, much as httpx does for its own transports."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
