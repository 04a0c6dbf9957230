"""Opening the payload of one config, and holding it against what was asked for.

Knows the keyring, the config, and the media types of sealed payloads; no HTTP.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .crypto import Binding, Keyring
from .errors import DecryptionError, InvalidResponseError
from .protocol import BOUND_MEDIA_TYPE, Position

_SEALED_TYPE: Final = BOUND_MEDIA_TYPE.partition(";")[0]
# RFC 9110 §8.3.1 and §5.6.6: a type, then parameters that are words, or quoted text in which a backslash quotes one
# character. As text, compiled by those who meet anything but the one spelling that our service sends.
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = rf"[ \t]*({_WORD}/{_WORD})"
_PARAMETER: Final = rf'[ \t]*;[ \t]*(?:({_WORD})=({_WORD}|"(?:[^"\\]|\\.)*"))?'


class Expected(NamedTuple):
    """What a payload must be bound to: what was asked for, or what was told beside it. None: anything.

    ``at_least``: the newest position that the client has seen of this config; an older payload is a replay.
    """

    name: str
    environment: str | None = None
    label: str | None = None
    version: int | None = None
    position: Position | None = None
    at_least: Position | None = None


class OpenedPayload(NamedTuple):
    """A document, and what it is authentically bound to; None for sealed format 1, which binds nothing."""

    document: bytes
    binding: Binding | None


def encoding_of(content_type: str | None) -> int:
    """Return the sealed format that a content type names: 1 for everything but the media type of bound payloads.

    That one tells its format itself: 2, or one that this client does not know. Malformed, it counts as 1.
    """
    if content_type == BOUND_MEDIA_TYPE:
        return 2
    text = (content_type or "").rstrip(" \t")
    kind = re.match(_MEDIA_TYPE, text)
    if kind is None or kind[1].lower() != _SEALED_TYPE:
        return 1
    formats: list[str] = []
    end = kind.end()
    while end < len(text):
        parameter = re.compile(_PARAMETER).match(text, end)
        if parameter is None:
            return 1
        end = parameter.end()
        name, value = parameter.groups(default="")
        if name.lower() == "format":
            formats.append(re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value)
    return int(formats[0]) if len(formats) == 1 and re.fullmatch("[0-9]{1,9}", formats[0]) else 1


def open_payload(keyring: Keyring, config_name: str, payload: bytes) -> bytes:
    """Return the document inside a payload of sealed format 1. Raises DecryptionError, which names the config."""
    try:
        return keyring.open(payload)
    except DecryptionError as error:
        reason = str(error)
    raise DecryptionError(f"config {config_name!r}: {reason}")


def open_sealed(
    keyring: Keyring, expected: Expected, payload: bytes, *, encoding: int, require_bound: bool
) -> OpenedPayload:
    """Return the document inside a payload of sealed format ``encoding`` that is what ``expected`` says.

    Raises DecryptionError when it does not open, is bound to something else, is older than ``expected.at_least``, or
    is of format 1 while ``require_bound``; InvalidResponseError when the format is not known.
    """
    if encoding == 1:
        if require_bound:
            raise DecryptionError(
                f"config {expected.name!r}: it came in sealed format 1, which is not bound to name and revision, and "
                "require_bound is on; upgrade the service, or turn require_bound off"
            )
        return OpenedPayload(open_payload(keyring, expected.name, payload), None)
    if encoding != 2:
        raise InvalidResponseError(
            f"config {expected.name!r}: it came in sealed format {encoding}, and this client knows 1 and 2; upgrade it"
        )
    opened = _open_bound(keyring, expected, payload)
    if isinstance(opened, str):
        raise DecryptionError(f"config {expected.name!r}: {opened}")
    return opened


def _open_bound(keyring: Keyring, expected: Expected, payload: bytes) -> OpenedPayload | str:
    """Return what is inside, or why it is refused: whoever raises is not to have the document among its variables."""
    try:
        binding, document = keyring.open_bound(payload)
    except DecryptionError as error:
        return str(error)
    return _mismatch(expected, binding) or OpenedPayload(document, binding)


def _mismatch(expected: Expected, binding: Binding) -> str:
    """Return in which parts the authentic ``binding`` is not what was expected; empty when it is."""
    position = Position(binding.epoch, binding.revision)
    epoch, revision = expected.position or (None, None)
    pairs = (
        ("name", binding.name, expected.name),
        ("environment", binding.environment, expected.environment),
        ("label", binding.label, expected.label),
        ("version", binding.version, expected.version),
        ("epoch", binding.epoch, epoch),
        ("revision", binding.revision, revision),
    )
    faults = [f"{part} {bound!r}, not {wanted!r}" for part, bound, wanted in pairs if wanted not in (None, bound)]
    if faults:
        return (
            f"the payload is bound to {', '.join(faults)}: the service or something on the way answered with "
            "another one than was asked for"
        )
    if expected.at_least is not None and position < expected.at_least:
        older = "epoch" if position.epoch < expected.at_least.epoch else "revision"
        return (
            f"the payload is bound to position {position}, an older {older} than {expected.at_least}, which this "
            "client has seen: an old payload was replayed, or a replica is behind"
        )
    return ""
