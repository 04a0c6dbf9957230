"""A config as the service served it. Data only; loaded by every request, so it stands apart from the other outcomes."""

from __future__ import annotations

from typing import NamedTuple

from .errors import ConfigClientError
from .protocol import Metadata


class Fetched(NamedTuple):
    """A config as it was served; ``fault`` instead of ``document`` when it could not be opened."""

    metadata: Metadata
    document: bytes = b""
    fault: ConfigClientError | None = None
