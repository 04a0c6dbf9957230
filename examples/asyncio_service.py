"""The same for a program on asyncio: the stream is a task, and pre_apply may await."""

import asyncio
import json
from dataclasses import dataclass

from config_client import AsyncConfigClient, Change


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    log_level: str = "info"


async def can_be_used(orders: Orders) -> bool:
    await asyncio.sleep(0)  # a real service would connect here
    return orders.database.port > 0


async def main() -> None:
    changed = asyncio.Event()

    def told(change: Change[Orders]) -> None:
        changed.set()

    async with AsyncConfigClient.from_env() as client:
        orders = await client.subscribe("orders", Orders, pre_apply=can_be_used)
        orders.on_change(told)
        print(json.dumps({"version": orders.snapshot.version, "state": orders.status.state.value}), flush=True)
        await changed.wait()
        print(json.dumps({"version": orders.snapshot.version, "state": orders.status.state.value}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
