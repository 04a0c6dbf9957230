"""Reading requests: the token, queries, conditions and bodies, with every ambiguity refused.

Knows the syntax of HTTP headers and queries. What it raises never repeats its input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from config_client.protocol import DEFAULT_LABEL, TOKEN_HEADER

from ..domain.errors import DocumentTooLargeError, InvalidRequestError, UnauthenticatedError
from ..domain.keys import ConfigKey, check_environment
from ..domain.preconditions import Precondition
from ..security.tokens import Token
from .answers import Receive

RawHeaders = Iterable[tuple[bytes, bytes]]

_TOKEN_HEADER: Final = TOKEN_HEADER.lower().encode()
_KNOWN_PARAMETERS: Final = frozenset({"environment", "label", "version", "format"})
_MAX_FIELDS: Final = 100
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}\Z")
_VERSION_TAG: Final = re.compile(r'"([1-9][0-9]{0,17})"\Z|([1-9][0-9]{0,17})\Z')


def header(headers: RawHeaders, name: bytes) -> str | None:
    """Return the value of header ``name`` (lower case), or None. Raises InvalidRequestError when it comes twice."""
    found: bytes | None = None
    for key, value in headers:
        if key == name:
            if found is not None:
                raise InvalidRequestError(f"the header {name.decode()} was sent more than once")
            found = value
    return None if found is None else found.decode("latin-1").strip()


def secret_of(headers: RawHeaders) -> str:
    """Return the secret in ``X-Service-Token``.

    Raises UnauthenticatedError without one; InvalidRequestError with several, which proxies and services could each
    read differently.
    """
    secret = header(headers, _TOKEN_HEADER)
    if not secret:
        raise UnauthenticatedError("the header X-Service-Token is missing; send the secret of a token in it")
    return secret


def parse_query(raw: bytes) -> Mapping[str, str]:
    """Return the parameters of a query that have a value. Unknown ones are ignored.

    Raises InvalidRequestError when it is not UTF-8 behind percent signs, or a known parameter comes twice.
    """
    if not raw:
        return {}
    try:
        fields = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        fields = None
    if fields is None:
        raise InvalidRequestError(f"invalid query: at most {_MAX_FIELDS} parameters, percent-encoded UTF-8")
    known = [(name, value) for name, value in fields if name in _KNOWN_PARAMETERS]
    parameters = dict(known)
    if len(parameters) != len(known):
        raise InvalidRequestError("invalid query: a parameter was given more than once")
    return {name: value for name, value in parameters.items() if value}


def key_of(name: str, query: Mapping[str, str], token: Token) -> ConfigKey:
    """Return the key that a request means: without an environment the token's default one, without a label ``main``.

    Raises InvalidRequestError.
    """
    environment = query.get("environment", token.default_environment)
    return _checked_key(name, environment, query.get("label", DEFAULT_LABEL))


@lru_cache(maxsize=4096)
def _checked_key(name: str, environment: str, label: str) -> ConfigKey:
    """Return the key of three valid parts; the same few are asked for again and again."""
    return ConfigKey.of(name, environment, label)


def environment_of(query: Mapping[str, str]) -> str | None:
    """Return the environment that a request names, or None. Raises InvalidRequestError."""
    environment = query.get("environment")
    return None if environment is None else check_environment(environment)


def version_of(query: Mapping[str, str]) -> int | None:
    """Return the version that a request asks for, or None for the running one. Raises InvalidRequestError."""
    text = query.get("version")
    if text is None:
        return None
    if not _VERSION.match(text):
        raise InvalidRequestError("invalid version: a number from 1")
    return int(text)


def matches_etag(if_none_match: str | None, etag: str) -> bool:
    """Tell whether ``If-None-Match`` covers ``etag`` (weak comparison, RFC 9110 §13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]


def precondition_of(headers: RawHeaders) -> Precondition:
    """Return what ``If-Match`` (versions, quoted or not, or ``*``) and ``If-None-Match: *`` ask for.

    Raises InvalidRequestError.
    """
    headers = tuple(headers)
    if_match, if_none_match = header(headers, b"if-match"), header(headers, b"if-none-match")
    if if_none_match not in {None, "*"}:
        raise InvalidRequestError("invalid If-None-Match: only * is known, which creates and never replaces")
    absent = if_none_match is not None
    if if_match is None:
        return Precondition(absent=absent)
    if if_match == "*":
        return Precondition(running=True, absent=absent)
    tags = [_VERSION_TAG.match(tag.strip()) for tag in if_match.split(",")]
    versions = frozenset(int(tag[1] or tag[2]) for tag in tags if tag)
    if len(tags) > _MAX_FIELDS or not all(tags):
        raise InvalidRequestError('invalid If-Match: the version that the change was made on, such as "3", or *')
    return Precondition(versions=versions, absent=absent)


async def read_body(receive: Receive, headers: RawHeaders, limit: int) -> bytes:
    """Return the body of a request, of at most ``limit`` bytes, whatever ``Content-Length`` says.

    Raises DocumentTooLargeError as soon as the body is known to be longer, without reading on; InvalidRequestError
    when the connection ends before the body does.
    """
    announced = header(headers, b"content-length")
    if announced is not None and announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
        raise _too_large(limit)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequestError("the body ended early; send it again, whole")
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return bytes(body)


def _too_large(limit: int) -> DocumentTooLargeError:
    return DocumentTooLargeError(f"the body is over the limit of {limit} bytes")
