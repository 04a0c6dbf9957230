"""Paths and queries of requests, with every ambiguity refused as the real service refuses it. Knows no config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from ..protocol import KEY_IDS_HEADER, MIN_REVISION_HEADER, Position
from ._faults import Refusal

_PARAMETERS: Final = frozenset({"environment", "label", "version", "format"})
_MAX_TARGET_BYTES: Final = 8 * 1024
_MAX_FIELDS: Final = 100
_FORBIDDEN_ESCAPE: Final = re.compile(rb"%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff]|25|(?![0-9A-Fa-f]{2}))")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}\Z")
_WEIGHT: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}\Z")
_MAX_KEY_IDS: Final = 32


def check_path(path: bytes, query: bytes) -> None:
    """Return when ``path`` means the same to every reader on the way. Raises Refusal."""
    if len(path) + len(query) > _MAX_TARGET_BYTES:
        raise Refusal(414, f"the path and query are over the limit of {_MAX_TARGET_BYTES} bytes")
    segments = unquote_to_bytes(path).split(b"/")
    if (
        any(byte <= 0x20 or byte >= 0x7F for byte in path)
        or b"\\" in path
        or _FORBIDDEN_ESCAPE.search(path)
        or segments[0] != b""
        or b"" in segments[1:-1]
        or {b".", b".."} & set(segments)
    ):
        raise Refusal(
            400,
            "invalid path: no encoded slash or percent sign, no backslash or control character, "
            "no empty or dot segment, and only complete percent escapes",
        )


def parse_query(raw: bytes) -> Mapping[str, str]:
    """Return the known parameters that have a value. Raises Refusal when one comes twice or it is not UTF-8."""
    try:
        fields = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        fields = None
    if fields is None:
        raise Refusal(400, f"invalid query: at most {_MAX_FIELDS} parameters, percent-encoded UTF-8")
    known = [(name, value) for name, value in fields if name in _PARAMETERS]
    if len(dict(known)) != len(known):
        raise Refusal(400, "invalid query: a parameter was given more than once")
    return {name: value for name, value in known if value}


def version_of(query: Mapping[str, str]) -> int | None:
    """Return the version that a query asks for, or None for the running one. Raises Refusal."""
    text = query.get("version")
    if text is not None and not _VERSION.match(text):
        raise Refusal(400, "invalid version: a number from 1")
    return None if text is None else int(text)


def matches_etag(if_none_match: str | None, etag: str) -> bool:
    """Tell whether ``If-None-Match`` covers ``etag`` (weak comparison, RFC 9110 §13.1.2)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]


def accepts(accept: str, media_type: str) -> bool:
    """Tell whether ``Accept`` names ``media_type``, its parameters included, and does not exclude it by ``q=0``."""
    wanted = _media_range(media_type)
    for part in accept.split(","):
        found = _media_range(part)
        weight = found.pop("q", "1")
        if found == wanted and _WEIGHT.match(weight) and float(weight) > 0:
            return True
    return False


def key_ids_of(text: str | None) -> frozenset[str] | None:
    """Return the ids of the keys that a client says it holds, or None when it does not say. Raises Refusal."""
    if not text:
        return None
    ids = [part.strip() for part in text.split(",")]
    if len(ids) > _MAX_KEY_IDS or not all(_KEY_ID.match(one) for one in ids):
        raise Refusal(
            400, f"invalid {KEY_IDS_HEADER}: at most {_MAX_KEY_IDS} ids of 16 hex characters, separated by commas"
        )
    return frozenset(ids)


def minimum_of(text: str | None) -> Position | None:
    """Return the position that an answer must not be older than, or None. Raises Refusal."""
    position = None if text is None else Position.parse(text)
    if text is not None and position is None:
        raise Refusal(400, f"invalid {MIN_REVISION_HEADER}: an epoch and a revision, such as an event's id")
    return position


def _media_range(text: str) -> dict[str, str]:
    essence, *parameters = (part.strip().lower() for part in text.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters if parameter)
    return {"": essence, **{name.strip(): value.strip().strip('"') for name, _, value in pairs}}
