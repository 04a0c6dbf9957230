"""Keep a snapshot current in a daemon thread, and read it without a lock.

Prints a JSON line for every change and every refused value; ends when standard input does.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass

from config_client import Change, ConfigClient, Snapshot


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    log_level: str = "info"


def say(**fields: object) -> None:
    print(json.dumps({"at": time.time(), **fields}), flush=True)


def main() -> None:
    snapshot: Snapshot[Orders] = Snapshot()

    def changed(change: Change[Orders]) -> None:
        say(saw=asdict(change.new), version=change.version)

    def refused(error: Exception) -> None:
        say(refused=str(error), keeps=asdict(held) if (held := snapshot.load()) else None)

    snapshot.on_change(changed)
    with ConfigClient.from_env(on_error=refused) as client:
        threading.Thread(target=client.watch_and_decode, args=("orders", Orders, snapshot), daemon=True).start()
        sys.stdin.read()  # a service would serve requests here, each with one snapshot.load()
    say(stopped=True)


if __name__ == "__main__":
    main()
