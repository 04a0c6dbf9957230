"""One JSON object per line on standard output: how these programs tell what happens in which of their processes."""

from __future__ import annotations

import json
import os


def tell(what: str, **facts: object) -> None:
    """Write one line at once and in one piece, whatever has been done to ``sys.stdout`` and whoever writes beside."""
    line = {"what": what, "pid": os.getpid(), **facts}
    os.write(1, json.dumps(line).encode() + b"\n")
