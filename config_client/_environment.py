"""What the host and the process's environment decide about the network of a client: URL, proxy, certificates.

Knows the environment variables that httpx knows, and turns a wrong one into this package's error. Sends nothing.
"""

from __future__ import annotations

import ssl
from urllib.request import getproxies, proxy_bypass

import httpx

from ._interrupt import Interrupt
from ._network import InterruptibleTransport
from .errors import ConfigClientError
from .protocol import is_host


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


def network(url: httpx.URL, interrupt: Interrupt) -> InterruptibleTransport:
    """Return a transport to ``url`` through the proxy and with the trust that the environment names.

    Raises ConfigClientError when either cannot be used.
    """
    try:
        return InterruptibleTransport(interrupt, verify=_tls_context(url), proxy=_proxy(url))
    except OSError as error:
        fault = f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be loaded ({type(error).__name__})"
    except (ValueError, ImportError, httpx.InvalidURL):
        # Their texts may spell the URL, and a proxy's URL may hold a password.
        fault = "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be used (socks: install httpx[socks])"
    raise ConfigClientError(fault)


def _tls_context(url: httpx.URL) -> ssl.SSLContext:
    """Return the TLS settings for ``url``: httpx's own; for plain HTTP an empty context, which trusts nobody."""
    if url.scheme == "https":
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for ``url``, much as httpx does for its own transports."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
