"""The header of sealed format 2: what a payload is bound to, as bytes.

Knows bytes and bounds. Knows no key and no cipher; ``crypto`` hands these names on. To the byte:

    0x02 ‖ key id (8) ‖ nonce (12) ‖ epoch ‖ name ‖ environment ‖ label ‖ version (8) ‖ revision (8)

Each text is its length in bytes (2, big-endian) and then that many bytes of UTF-8; the numbers are big-endian. Every
field stands at a place that the bytes before it fix, so two different bindings never share a header, and none is the
beginning of another. The ciphertext and the tag of 16 bytes follow.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .errors import ConfigClientError, DecryptionError

NONCE_SIZE: Final = 12
"""Bytes of the nonce in front of every sealed payload."""
GCM_TAG_SIZE: Final = 16
"""Bytes of the authentication tag behind every sealed payload."""
KEY_ID_SIZE: Final = 8
"""Bytes of a key id."""
BOUND_FORMAT: Final = 2
"""The first byte of sealed format 2."""
MAX_TEXT_SIZE: Final = 1024
"""Bytes of UTF-8 that epoch, name, environment and label may each take."""
MAX_NUMBER: Final = 2**63 - 1
"""The largest version or revision: what every language and database can hold."""

_NUMBER_SIZE: Final = 8
_LENGTH_SIZE: Final = 2


class Binding(NamedTuple):
    """What a payload of sealed format 2 is bound to: a version of one config, and its place in the history."""

    epoch: str
    name: str
    environment: str
    label: str
    version: int
    revision: int


class SealedHeader(NamedTuple):
    """The cleartext in front of a payload of sealed format 2. Not to be believed before the payload authenticates.

    ``size``: bytes of the header, which are the additional data; the ciphertext begins there.
    """

    key_id: str
    nonce: bytes
    binding: Binding
    size: int


def dump_header(key_id: bytes, nonce: bytes, binding: Binding) -> bytes:
    """Return the header of a payload bound to ``binding``. Raises ConfigClientError for what no header can hold."""
    parts = [bytes((BOUND_FORMAT,)), key_id, nonce]
    for what, text in zip(Binding._fields, binding[:4], strict=False):
        parts.append(_dump_text(what, text))
    for what, number in (("version", binding.version), ("revision", binding.revision)):
        if not 0 <= number <= MAX_NUMBER:
            raise ConfigClientError(f"a payload cannot be bound to {what} {number}: 0 to {MAX_NUMBER} are allowed")
        parts.append(number.to_bytes(_NUMBER_SIZE, "big"))
    return b"".join(parts)


def parse_header(payload: bytes) -> SealedHeader:
    """Return the header of a payload of sealed format 2, whose ciphertext was not looked at.

    Raises DecryptionError when the payload is of another format, ends too soon, or breaks a bound. The text repeats
    nothing of the payload but its first byte and its lengths.
    """
    if not payload:
        raise DecryptionError("sealed payload is empty; is something else answering in place of the service?")
    if payload[0] != BOUND_FORMAT:
        raise DecryptionError(
            f"payload is not of sealed format {BOUND_FORMAT}: it begins with 0x{payload[0]:02x}; does the service "
            "speak a newer protocol, or did something on the way change the body or its content type?"
        )
    reader = _Reader(payload)
    key_id = reader.take(KEY_ID_SIZE, "key id").hex()
    nonce = reader.take(NONCE_SIZE, "nonce")
    epoch, name, environment, label = (reader.take_text(what) for what in Binding._fields[:4])
    version, revision = (reader.take_number(what) for what in Binding._fields[4:])
    size = reader.position
    reader.take(GCM_TAG_SIZE, "tag")
    return SealedHeader(key_id, nonce, Binding(epoch, name, environment, label, version, revision), size)


class _Reader:
    """Takes one field after another, each within what is left."""

    __slots__ = ("_payload", "position")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.position = 1

    def take(self, size: int, what: str) -> bytes:
        end = self.position + size
        if end > len(self._payload):
            raise DecryptionError(
                f"sealed payload of {len(self._payload)} bytes ends inside its {what}, which takes {end}: it was cut "
                "short on the way"
            )
        field = self._payload[self.position : end]
        self.position = end
        return field

    def take_number(self, what: str) -> int:
        number = int.from_bytes(self.take(_NUMBER_SIZE, what), "big")
        if number > MAX_NUMBER:
            raise DecryptionError(f"sealed payload: its {what} is over {MAX_NUMBER}; the payload was altered")
        return number

    def take_text(self, what: str) -> str:
        size = int.from_bytes(self.take(_LENGTH_SIZE, f"length of the {what}"), "big")
        if size > MAX_TEXT_SIZE:
            raise DecryptionError(
                f"sealed payload: its {what} of {size} bytes is over {MAX_TEXT_SIZE}; the payload was altered"
            )
        field = self.take(size, what)
        try:
            return field.decode()
        except UnicodeDecodeError:
            pass  # Raised outside: the error of the codec carries the bytes.
        raise DecryptionError(f"sealed payload: its {what} is not UTF-8; the payload was altered")


def _dump_text(what: str, text: str) -> bytes:
    try:
        field = text.encode()
    except UnicodeEncodeError:
        field = None
    if field is None or len(field) > MAX_TEXT_SIZE:
        raise ConfigClientError(f"a payload cannot be bound to this {what}: at most {MAX_TEXT_SIZE} bytes of UTF-8")
    return len(field).to_bytes(_LENGTH_SIZE, "big") + field
