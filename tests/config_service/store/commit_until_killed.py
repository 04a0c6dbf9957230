"""A program for the crash tests: commits from several tasks to the store at a URL, and reports what came back.

``argv[1]`` is the URL, ``argv[2]`` seeds the sizes. Writes ``open`` once the store is open, then one line per commit
that has returned: name, version, revision, and the document's SHA-256. It is meant to be killed; by itself it ends
after thousands of commits.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from datetime import datetime, timezone

from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, NewVersion
from config_service.store.protocol import ConfigStore
from config_service.store.urls import create_store

WRITERS = 4
COMMITS = 2_000


def report(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def write(store: ConfigStore, name: str, chance: random.Random) -> None:
    base = len(await store.versions(ConfigKey(name)))
    for number in range(base, base + COMMITS):
        document = chance.randbytes(chance.choice((10, 1_000, 20_000)))
        now = datetime.now(timezone.utc)
        change = NewVersion(ConfigKey(name), number, document, ChangeKind.PUBLISHED, 7, now)
        version = await store.commit_version(change)
        report(f"{name} {version.version} {version.revision} {hashlib.sha256(document).hexdigest()}")


async def write_pairs(store: ConfigStore, chance: random.Random) -> None:
    """Commit two configs together, again and again; both lines of a pair are reported at once."""
    keys = [ConfigKey("pair-0"), ConfigKey("pair-1")]
    base = len(await store.versions(keys[0]))
    for number in range(base, base + COMMITS):
        document = chance.randbytes(chance.choice((10, 1_000)))
        now = datetime.now(timezone.utc)
        made = await store.commit_versions(
            [NewVersion(key, number, document, ChangeKind.PUBLISHED, 7, now) for key in keys]
        )
        digest = hashlib.sha256(document).hexdigest()
        report("\n".join(f"{one.key.name} {one.version} {one.revision} {digest}" for one in made))


async def main() -> None:
    store = create_store(sys.argv[1])
    await store.open()
    report("open")
    seed = int(sys.argv[2])
    await asyncio.gather(
        write_pairs(store, random.Random(-1 - seed)),
        *(write(store, f"config-{n}", random.Random(seed * WRITERS + n)) for n in range(WRITERS)),
    )
    await store.close()


asyncio.run(main())
