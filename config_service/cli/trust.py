"""Whom the commands trust, and as whom they come: the files of TLS that the environment names.

Knows names of variables and the standard library's TLS. Knows no request.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

from .exits import CommandError, ExitCode

CA: Final = "CONFIG_SERVER_CA"
"""PEM of the authorities that may vouch for the service; without it SSL_CERT_FILE, or else the usual ones."""
CERTIFICATE: Final = "CONFIG_SERVER_CLIENT_CERT"
"""PEM of the operator's certificate, for mutual TLS; its key may be in the same file."""
KEY: Final = "CONFIG_SERVER_CLIENT_KEY"
"""PEM of its key, without a password."""


def tls_context() -> ssl.SSLContext | None:
    """Return what a connection to the service is secured by; None: as the HTTP library does by itself.

    Raises CommandError, which names variables.
    """
    authorities = os.environ.get(CA) or os.environ.get("SSL_CERT_FILE") or None
    certificate, key = os.environ.get(CERTIFICATE), os.environ.get(KEY) or None
    if not authorities and not certificate:
        return None
    try:
        context = ssl.create_default_context(cafile=authorities, capath=os.environ.get("SSL_CERT_DIR") or None)
        if certificate:
            # An empty password: nobody is asked for one in the middle of a script.
            context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not PEM that fits together"
    else:
        return context
    raise CommandError(
        f"the certificates cannot be used ({reason}): {CA} (or SSL_CERT_FILE) names a file of authorities, "
        f"{CERTIFICATE} and {KEY} a certificate and its key, without a password",
        ExitCode.USAGE,
    )
