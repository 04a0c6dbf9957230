"""A program for the crash tests: rotates the data key and seals anew, again and again, while others publish.

``argv[1]`` is the URL of the store. Writes ``open``, then a line per publish that was acknowledged and one per rotation
that came to its end. It is meant to be killed; by itself it ends after many rotations.
"""

from __future__ import annotations

import asyncio
import os
import sys

from config_service.app import Application, create_app
from config_service.domain.keys import ConfigKey
from config_service.domain.sealing import SealedPlace
from config_service.security.tokens import Token
from config_service.settings import Settings

ROTATIONS = 500


def report(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def write(app: Application, admin: Token, key: ConfigKey) -> None:
    for number in range(10_000):
        outcome = await app.operations.publish(admin, key, b'{"number": %d}' % number)
        report(f"published {key.name} {outcome.document.version} {number}")
        await app.operations.drafts.replace(admin, key, b'{"draft": %d}' % number)
        await app.operations.tokens.rotate_key(admin, admin.id, 0)


async def rotate(app: Application, admin: Token) -> None:
    for _ in range(ROTATIONS):
        await app.operations.keys.rotate(admin)
        after: SealedPlace | None = None
        while True:
            after = (await app.operations.keys.reseal(admin, after, 7)).after
            if after is None:
                break
        report("rotated")


async def main() -> None:
    app = create_app(Settings.load(master_key="5a" * 32, store_url=sys.argv[1]))
    await app.start()
    admin = app.operations._registry.get(1) or (await app.operations.tokens.bootstrap("admin")).token
    report("open")
    writers = [asyncio.create_task(write(app, admin, ConfigKey(f"config-{n}"))) for n in range(2)]
    await rotate(app, admin)
    for writer in writers:
        writer.cancel()


asyncio.run(main())
