"""``python -m benchmarks [NAME …]``: run the named benchmarks, or all. The last line of each is JSON.

Exits with 1 when an aim is missed, so that a miss is seen; figures from a busy machine deserve a second run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from . import get, import_time, propagation, snapshot_load
from .harness import Result

BENCHMARKS: Final[dict[str, Callable[[], Result]]] = {
    "snapshot_load": snapshot_load.run,
    "get": get.run,
    "import_time": import_time.run,
    "propagation": propagation.run,
}


def main(names: list[str]) -> int:
    """Run ``names`` and return the exit status."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    missed = []
    for name in names or BENCHMARKS:
        print(f"{name} ({(sys.modules[BENCHMARKS[name].__module__].__doc__ or '').splitlines()[0]})")
        result = BENCHMARKS[name]()
        if result.ok is False:
            missed.append(name)
        print(f"  unit: {result.unit}")
        print(result.as_json(), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
