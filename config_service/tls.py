"""TLS of the listener: from files to a context, and a new certificate without a restart.

Knows certificates and OpenSSL's context. Knows nothing of HTTP or configs. No message repeats what is in a file.
"""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .domain.errors import ServiceError

_PROTOCOLS: Final = ["http/1.1"]
_logger = logging.getLogger("config_service")


class TlsError(ServiceError):
    """A file of the TLS settings cannot be used. Names the variables, never the content."""

    code = "invalid_tls"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its intermediates, its key, and, for mutual TLS, who signs for clients."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


class Tls:
    """The context of a listener, at least TLS 1.2. ``reload`` changes the certificate of connections to come."""

    def __init__(self, files: TlsFiles) -> None:
        """Read the files. Raises TlsError."""
        self._files = files
        self._seen = self._look()
        self.context: Final = _context(files)
        """For ``loop.create_server``."""

    def reload_if_changed(self) -> bool:
        """Reload when a file was replaced since the last look, and tell whether a new certificate is in use."""
        return self._look() != self._seen and self.reload()

    def reload(self) -> bool:
        """Read certificate and key again, and tell whether they are in use; if they are no good, the old ones stay.

        Connections under way go on. Who signs clients' certificates is read at the start only: a context of OpenSSL can
        be told to trust more, never less.
        """
        seen = self._look()
        if seen == self._seen:
            # Asked for anyway: what the file system shows may be less than what changed.
            _logger.info("the TLS certificate is read again")
        self._seen = seen
        try:
            # Into a context of its own first: half a change would leave the one in use with the key of another.
            _context(self._files)
            _load_certificate(self.context, self._files)
        except TlsError as error:
            _logger.error("the TLS certificate in use stays: %s", error)
            return False
        _logger.info("a new TLS certificate is in use")
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Return what tells a file from the one before it; None for one that is not there."""
        return tuple(_stamp(path) for path in (self._files.certificate, self._files.key))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client could make the service do the expensive part of a handshake again and again.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(_PROTOCOLS)
    _load_certificate(context, files)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        fault = None
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except (OSError, ValueError) as error:
            fault = _reason(error)
        if fault is not None:
            raise TlsError(
                f"CONFIG_SERVER_TLS_CLIENT_CA cannot be used ({fault}): it must name a PEM file with the certificates "
                "of those who sign clients' certificates"
            )
    return context


def _load_certificate(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        # A key under a password would make OpenSSL ask for it on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        fault = _reason(error)
    else:
        return
    raise TlsError(
        f"CONFIG_SERVER_TLS_CERT and CONFIG_SERVER_TLS_KEY cannot be used ({fault}): they must name PEM files with a "
        "certificate, its intermediates behind it, and with its key, which has no password"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "unreadable").lower().replace("_", " ")
    return error.strerror or "unreadable" if isinstance(error, OSError) else "unreadable"
