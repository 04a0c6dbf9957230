"""The words of the wire protocol that its other modules are made of: names, positions, times, JSON.

Does no I/O. ``protocol`` hands on whatever others may use.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Final, NamedTuple, TypeGuard
from urllib.parse import urlsplit

from .errors import InvalidResponseError

DEFAULT_ENVIRONMENT: Final = "default"
DEFAULT_LABEL: Final = "main"
MAX_NAME_LENGTH: Final = 128
RESERVED_NAMES: Final = frozenset({"api", "healthz", "readyz", "metrics", "monitor", "docs"})

# Text, compiled when first needed: the import of this package is not to wait for them.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"
_LABEL: Final = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z"
_POSITION: Final = r"([0-9a-f]{24})-([0-9]{1,18})\Z"
_TIMESTAMP: Final = r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(?:[Zz]|([+-]\d\d)(?::?(\d\d))?)?)?"
_HOST: Final = re.compile(r"https?://[^\s/?#@\\\x00-\x1f\x7f]+(/[^\s?#@\\\x00-\x1f\x7f]*)?\Z", re.IGNORECASE)


# Named tuples, not dataclasses, where nothing else speaks against it: a tenth of the cost at import.
class Position(NamedTuple):
    """A place in the history of a store: its epoch, then the revision within it.

    An epoch is 24 hex characters that begin with its creation time, so positions order as text and number do.
    """

    epoch: str
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.revision}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that ``text`` (an event id) spells, or None when it is not one."""
        match = re.match(_POSITION, text)
        return cls(match[1], int(match[2])) if match else None


def is_name(text: str) -> bool:
    """Tell whether ``text`` may name a config: a slug of at most 128 characters, without ``..``, not reserved."""
    return re.match(_NAME, text) is not None and ".." not in text and text.lower() not in RESERVED_NAMES


def is_environment(text: str) -> bool:
    """Tell whether ``text`` may name an environment: a slug of at most 128 characters, without ``..``."""
    return re.match(_NAME, text) is not None and ".." not in text


def is_label(text: str) -> bool:
    """Tell whether ``text`` may be a label: a slug that may contain single inner slashes, without ``..``."""
    return re.match(_LABEL, text) is not None and ".." not in text and "//" not in text and not text.endswith("/")


def is_host(text: str) -> bool:
    """Tell whether ``text`` may be the URL of a service: http(s), a host, optionally a port and a path, no user."""
    if not _HOST.match(text):
        return False
    try:
        # Resolvers take a port modulo 65536, and the token would go to another one.
        return urlsplit(text).port != 0
    except ValueError:
        return False


def is_token(text: str) -> bool:
    """Tell whether ``text`` may be a token's secret: printable ASCII without spaces, as a header can carry it."""
    # RFC 9110 §5.5: what a header can carry; anything else would end up in the error of an HTTP library.
    return text.isascii() and text.isprintable() and " " not in text and text != ""


def format_timestamp(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 with ``+00:00`` and 0 or 6 fraction digits. A naive time counts as UTC."""
    return _as_utc(moment).isoformat()


def parse_timestamp(text: str) -> datetime:
    """Return the aware UTC datetime that ``text`` spells: ``Z`` or an offset, any number of fraction digits.

    A time without an offset counts as UTC. Raises ValueError. (Python 3.10's ``fromisoformat`` reads neither ``Z``
    nor ``+0000`` nor other than 3 or 6 fraction digits, so the text is put into the one form that all versions read.)
    """
    match = re.fullmatch(_TIMESTAMP, text.strip(), re.ASCII)
    if match is None:
        raise ValueError("not a date and time as in RFC 3339")
    date, clock, fraction, hours, minutes = match.groups()
    clock = clock or "00:00"
    seconds = clock if clock.count(":") == 2 else clock + ":00"
    offset = f"{hours}:{minutes or '00'}" if hours else "+00:00"
    moment = datetime.fromisoformat(f"{date}T{seconds}.{(fraction or '')[:6].ljust(6, '0')}{offset}")
    try:
        return _as_utc(moment)
    except OverflowError:
        pass
    raise ValueError("a time that in UTC lies outside the years 1 to 9999")


def load_json(text: str | bytes, what: str) -> object:
    """Parse JSON, raising outside the handler: a JSONDecodeError carries the whole document."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return value
    raise InvalidResponseError(f"{what} is not JSON; is host the service?")


def _as_utc(moment: datetime) -> datetime:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def timestamp_or_none(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return parse_timestamp(text)
    except ValueError:
        return None
