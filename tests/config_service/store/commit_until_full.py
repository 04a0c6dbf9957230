"""A program for the disk tests: lets the store in ``argv[1]`` run into a limit on the size of its files.

Prints one line per step: what it did and how the store answered.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys

from config_service.domain.errors import StoreError
from config_service.domain.keys import ConfigKey
from config_service.store.sql import SqlStore
from config_service.testing import check_laws, new_version

LIMIT = 400_000
"""Bytes that a file may have: more than an empty store, less than what is committed here."""
ENDLESS = 100


async def main() -> None:
    store = SqlStore(f"sqlite:///{sys.argv[1]}")
    await store.open()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    acknowledged = 0
    failure: StoreError | None = None
    while failure is None and acknowledged < ENDLESS:
        document = os.urandom(30_000)
        try:
            await store.commit_version(new_version(ConfigKey(f"config-{acknowledged}"), document=document))
            acknowledged += 1
        except StoreError as error:
            failure = error
    print("failed", type(failure).__name__, failure)
    print("kept", 0 < acknowledged == (await store.position()).revision)
    await check_laws(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    version = await store.commit_version(new_version(ConfigKey("with-room-again"), document=os.urandom(300_000)))
    print("went on", version.revision == acknowledged + 1)
    await store.close()
    await store.open()
    await check_laws(store)
    print("reopened", (await store.position()).revision == acknowledged + 1)
    await store.close()


asyncio.run(main())
