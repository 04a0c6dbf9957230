"""A program for the disk tests: lets the store at the URL ``argv[1]`` run out of room.

Room is limited by the size that a file may have, or, with ``argv[2]``, by the file system that is mounted there. Prints
one line per step: what it did and how the store answered.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys

from config_service.domain.errors import StoreError
from config_service.domain.keys import ConfigKey
from config_service.store.urls import create_store
from config_service.testing import check_laws, new_version

LIMIT = 400_000
"""Bytes that a file may have: more than an empty store, less than what is committed here."""
ENDLESS = 100
STEP = 30_000
"""Bytes by which every document is larger than the one before: so there is an end also where each has a file."""
MOUNTED = sys.argv[2] if len(sys.argv) > 2 else None


def take_room() -> None:
    if MOUNTED is None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def give_room() -> None:
    if MOUNTED is None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    else:
        subprocess.run(["mount", "-o", "remount,size=16m", MOUNTED], check=True)


async def main() -> None:
    store = create_store(sys.argv[1])
    await store.open()
    take_room()
    acknowledged = 0
    failure: StoreError | None = None
    while failure is None and acknowledged < ENDLESS:
        document = os.urandom(STEP * (acknowledged + 1))
        try:
            await store.commit_version(new_version(ConfigKey(f"config-{acknowledged}"), document=document))
            acknowledged += 1
        except StoreError as error:
            failure = error
    print("failed", type(failure).__name__, failure)
    print("kept", 0 < acknowledged == (await store.position()).revision)
    await check_laws(store)
    give_room()
    version = await store.commit_version(new_version(ConfigKey("with-room-again"), document=os.urandom(300_000)))
    print("went on", version.revision == acknowledged + 1)
    await store.close()
    await store.open()
    await check_laws(store)
    print("reopened", (await store.position()).revision == acknowledged + 1)
    await store.close()


asyncio.run(main())
