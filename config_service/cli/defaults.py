"""What holds when nothing else is said. Knows nothing else."""

from __future__ import annotations

from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:8080"
"""Where a service listens that nobody has told otherwise."""
