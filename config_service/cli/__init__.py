"""The command ``config-service``. ``--help`` and completion answer without loading the service itself."""

from __future__ import annotations

import io
import sys

from .program import program

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments of this process name, and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of another encoding is no reason to fail
    program(prog_name="config-service")
