"""Subscribe to a config: the first value is there at once, every later one replaces it in the background.

Refuses a value that would not work, reacts to one path only, and says how current the value is. Prints JSON lines; ends
when standard input does.
"""

import json
import sys
from dataclasses import dataclass

from config_client import Change, ConfigClient


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    log_level: str = "info"


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def can_be_used(orders: Orders) -> bool:
    # A real service would connect here, before the new value replaces the one that works.
    return orders.database.port > 0


def reconnect(change: Change[Orders]) -> None:
    say(reconnect=change.new.database.host, because=sorted(change.paths))


def main() -> None:
    with ConfigClient.from_env() as client:
        orders = client.subscribe("orders", Orders, pre_apply=can_be_used)
        orders.snapshot.on_path("database", reconnect)
        say(state=orders.status.state.value, version=orders.snapshot.version)
        for _ in sys.stdin:  # a service would serve requests here, each with one load()
            config = orders.load()
            say(
                host=config.database.host if config else None, state=orders.status.state.value, why=orders.status.reason
            )
    say(state=orders.status.state.value)


if __name__ == "__main__":
    main()
