"""What every answer tells a browser, which may have been led here: keep nothing, guess nothing, load and embed nothing.

Knows header names. Answers to programs carry them too, since nobody can tell the two apart.
"""

from __future__ import annotations

from typing import Final

from .answers import NO_SNIFF, NO_STORE, Headers

SECURITY_HEADERS: Final[Headers] = [
    NO_SNIFF,
    NO_STORE,
    # There are no pages; should an answer be taken for one, it can do nothing.
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""A year, without subdomains, which are somebody else's (RFC 6797). Over plain HTTP it must not be sent (7.2)."""


def secured(headers: Headers, scheme: str) -> Headers:
    """Return ``headers`` with those of the above that they lack."""
    told = {name for name, _ in headers}
    answer = [*headers, *(line for line in SECURITY_HEADERS if line[0] not in told)]
    if scheme == "https":
        answer.append(_HSTS)
    return answer
