"""Reading requests: the token, queries, conditions and bodies, with every ambiguity refused.

Knows the syntax of HTTP headers and queries. What it raises never repeats its input.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl

from config_client.protocol import (
    BOUND_MEDIA_TYPE,
    DEFAULT_LABEL,
    KEY_IDS_HEADER,
    MIN_REVISION_HEADER,
    TOKEN_HEADER,
    Held,
    Position,
    parse_timestamp,
    parse_watch_request,
)

from ..background import beside
from ..domain.errors import (
    DocumentTooLargeError,
    InvalidRequestError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)
from ..domain.keys import ConfigKey, check_environment
from ..domain.patches import PatchKind
from ..domain.preconditions import Precondition
from ..security.tokens import Token
from .answers import Receive

RawHeaders = Iterable[tuple[bytes, bytes]]

_TOKEN_HEADER: Final = TOKEN_HEADER.lower().encode()
_MIN_REVISION_HEADER: Final = MIN_REVISION_HEADER.lower().encode()
_KEY_IDS_HEADER: Final = KEY_IDS_HEADER.lower().encode()
_KNOWN_PARAMETERS: Final = frozenset(
    {"environment", "label", "version", "format", "base", "from", "to", "valid_from", "config"}
)
_MAX_FIELDS: Final = 100
_LARGE: Final = 64 * 1024
"""Bytes from which a body is parsed on a thread: streams and reads must not wait for it."""
_BOUND_TYPE: Final = BOUND_MEDIA_TYPE.partition(";")[0]
_MAX_KEY_IDS: Final = 32
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 §5.6.2
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
# RFC 9110 §12.5.1: a media range with parameters, one of which may be its weight. White space belongs to exactly one
# place of the pattern, so that nothing is tried in two ways.
_MEDIA_RANGE: Final = re.compile(
    rf"\s*({_TOKEN}/{_TOKEN})\s*((?:;\s*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED})\s*)?)*)(?:,|\Z)"
)
_PARAMETER: Final = re.compile(rf";\s*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_WEIGHT: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")
_HAS_OFFSET: Final = re.compile(r"T.*(?:Z|[+-]\d\d:?\d\d)\Z", re.IGNORECASE)
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
    """Return the parameters of a query that have a value. Unknown ones are ignored; an empty moment is not.

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
    # Who means to publish for later, and forgot when, does not mean at once.
    return {name: value for name, value in parameters.items() if value or name == "valid_from"}


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


def base_of(query: Mapping[str, str]) -> int | None:
    """Return the version that a draft was made on, 0 for none, or None when it is not said.

    Raises InvalidRequestError.
    """
    text = query.get("base")
    if text is None:
        return None
    if text != "0" and not _VERSION.match(text):
        raise InvalidRequestError("invalid base: the number of a version, or 0 for a config that was never published")
    return int(text)


def valid_from_of(query: Mapping[str, str]) -> datetime | None:
    """Return the moment from which on a version is to run, or None for at once. Raises InvalidRequestError."""
    text = query.get("valid_from")
    if text is None:
        return None
    # Behind a plus sign that nobody has encoded there is a space, where no other time has one.
    text = text.replace(" ", "+")
    try:
        moment = parse_timestamp(text) if _HAS_OFFSET.search(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise InvalidRequestError(
            "invalid valid_from: a time with an offset as in RFC 3339, such as 2026-01-31T12:00:00+00:00 or …Z"
        )
    return moment


def patch_kind_of(headers: RawHeaders) -> PatchKind:
    """Return the kind of patch that ``Content-Type`` names. Raises UnsupportedMediaTypeError."""
    media_type = (header(headers, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type not in {kind.value for kind in PatchKind}:
        kinds = " or ".join(kind.value for kind in PatchKind)
        raise UnsupportedMediaTypeError(f"a patch of a draft has the Content-Type {kinds}")
    return PatchKind(media_type)


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


def accepts_bound(headers: RawHeaders) -> bool:
    """Tell whether ``Accept`` names sealed format 2 and does not exclude it (``q=0``).

    Only its full name with ``format=2`` counts: whoever sends ``*/*`` knows format 1 alone. What cannot be read names
    nothing.
    """
    accept = b",".join([value for name, value in headers if name == b"accept"])
    # Clients send the same few again and again; whoever sends something long does not get to fill a memory with it.
    return _accepts_bound(accept) if len(accept) <= 256 else _accepts_bound.__wrapped__(accept)


@lru_cache(maxsize=256)
def _accepts_bound(accept: bytes) -> bool:
    return any(_names_bound(*each) for each in _media_ranges(accept.decode("latin-1")))


def _media_ranges(accept: str) -> Iterator[tuple[str, str]]:
    # Empty elements of a list are nothing (RFC 9110 §5.6.1.2).
    place = _skip_empty(accept, 0)
    while place < len(accept) and (match := _MEDIA_RANGE.match(accept, place)):
        yield match[1].lower(), match[2]
        place = _skip_empty(accept, match.end())


def _skip_empty(text: str, place: int) -> int:
    while place < len(text) and text[place] in ", \t":
        place += 1
    return place


def _names_bound(media_type: str, parameters: str) -> bool:
    fields = {name.lower(): _unquoted(value) for name, value in _PARAMETER.findall(parameters)}
    weight = fields.pop("q", "1")
    wanted = media_type == _BOUND_TYPE and fields == {"format": "2"}
    return wanted and _WEIGHT.match(weight) is not None and float(weight) > 0


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def key_ids_of(headers: RawHeaders) -> frozenset[str] | None:
    """Return the ids of the keys that the client says it holds, or None when it does not say.

    Raises InvalidRequestError.
    """
    text = header(headers, _KEY_IDS_HEADER)
    if not text:
        return None
    ids = [part.strip() for part in text.split(",")]
    if len(ids) > _MAX_KEY_IDS or not all(_KEY_ID.match(one) for one in ids):
        raise InvalidRequestError(
            f"invalid {KEY_IDS_HEADER}: at most {_MAX_KEY_IDS} ids of 16 hex characters, separated by commas"
        )
    return frozenset(ids)


def min_revision_of(headers: RawHeaders) -> Position | None:
    """Return the position that the answer must not be older than, or None. Raises InvalidRequestError."""
    text = header(headers, _MIN_REVISION_HEADER)
    if text is None:
        return None
    position = Position.parse(text)
    if position is None:
        raise InvalidRequestError(f"invalid {MIN_REVISION_HEADER}: an epoch and a revision, such as an event's id")
    return position


async def watched_of(body: bytes) -> list[Held]:
    """Return what the body of a state-first watch asks for; a long one is read beside the event loop.

    Raises InvalidRequestError.
    """
    try:
        return parse_watch_request(body) if len(body) < _LARGE else await beside(lambda: parse_watch_request(body))
    except ValueError as error:
        rule = str(error)
    raise InvalidRequestError(f"invalid watch: {rule}")


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
