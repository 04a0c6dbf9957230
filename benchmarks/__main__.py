"""``python -m benchmarks [--quick] [NAME …]``: run the named benchmarks, or all. Each result is followed by its JSON.

Exits with 1 when an aim is missed, so that a miss is seen; figures from a busy machine deserve a second run. What
cannot be run here is skipped, with the reason. ``--quick`` only shows that everything works: a few rounds with little
load, whose figures say nothing, so that a missed aim does not count.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from . import (
    fanout,
    get,
    growth,
    herd,
    import_time,
    propagation,
    publishes,
    reads,
    snapshot_load,
    watch_latency,
    watch_resources,
)
from .harness import Result
from .machine import SkippedError

BENCHMARKS: Final[dict[str, Callable[[bool], Sequence[Result]]]] = {
    "snapshot_load": snapshot_load.run,
    "get": get.run,
    "import_time": import_time.run,
    "propagation": propagation.run,
    "watch_latency": watch_latency.run,
    "watch_resources": watch_resources.run,
    "herd": herd.run,
    "fanout": fanout.run,
    "reads": reads.run,
    "publishes": publishes.run,
    "growth": growth.run,
}


def main(arguments: list[str]) -> int:
    """Run what ``arguments`` name and return the exit status."""
    quick = "--quick" in arguments
    names = [argument for argument in arguments if argument != "--quick"]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    missed = False
    for name in names or BENCHMARKS:
        print(f"{name} ({(sys.modules[BENCHMARKS[name].__module__].__doc__ or '').splitlines()[0]})", flush=True)
        try:
            results = BENCHMARKS[name](quick)
        except SkippedError as reason:
            print(f"  skipped: {reason}", flush=True)
            continue
        for result in results:
            print(result.as_text())
            print(result.as_json(), flush=True)
            missed = missed or result.ok is False
    return 1 if missed and not quick else 0


if __name__ == "__main__":
    # Ended from outside, it still ends the servers that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
