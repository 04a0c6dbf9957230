"""Which build of the service this is. Knows the metadata of the installed distribution and nothing else."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

DISTRIBUTION: Final = "python-config-client"


@cache
def service_version() -> str:
    """Return the version of the distribution; ``unknown`` where the code runs without being installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
