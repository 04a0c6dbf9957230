"""Opening the payload of one config. Knows the keyring and the config's name; no HTTP."""

from __future__ import annotations

from .crypto import Keyring
from .errors import DecryptionError


def open_payload(keyring: Keyring, config_name: str, payload: bytes) -> bytes:
    """Return the document inside a sealed payload. Raises DecryptionError, which names the config."""
    try:
        return keyring.open(payload)
    except DecryptionError as error:
        reason = str(error)
    raise DecryptionError(f"config {config_name!r}: {reason}")
