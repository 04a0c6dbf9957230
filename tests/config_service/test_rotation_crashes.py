"""A service that is killed in the middle of rotating and sealing anew: nothing is lost, and it goes on."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import config_service
from config_service.app import create_app
from config_service.domain.keys import ConfigKey
from config_service.domain.records import KeyUse
from config_service.domain.sealing import SealedPlace
from config_service.settings import Settings
from config_service.verifying import Verification

pytestmark = pytest.mark.integration
PROGRAM = Path(__file__).with_name("rotate_until_killed.py")
ROOT = Path(config_service.__file__).parent.parent


def killed(url: str, lines: int) -> list[str]:
    """Return what was acknowledged before SIGKILL hit, which it does after so many lines."""
    command = [sys.executable, str(PROGRAM), url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        output = process.stdout
        assert output is not None
        assert output.readline() == b"open\n"
        told = [output.readline().decode() for _ in range(lines)]
    finally:
        process.kill()
        rest, _ = process.communicate()
    # What was written before the kill was acknowledged, a line cut in the middle aside.
    return told + rest.decode().splitlines(keepends=True)


async def look(url: str) -> tuple[dict[tuple[str, int], bytes | None], int]:
    """Verify the store; finish what was cut; return every version, and how many data keys are left."""
    app = create_app(Settings.load(master_key="5a" * 32, store_url=url))
    await app.start()
    try:
        for _ in range(2):
            verification = Verification(app._store, app._vault, app._keys.hold)
            async for _progress in verification.run():
                pass
            assert verification.report.findings == ()
            admin = app.operations._registry.get(1)
            assert admin is not None
            after: SealedPlace | None = None
            while (after := (await app.operations.keys.reseal(admin, after, 100)).after) is not None:
                pass
        found: dict[tuple[str, int], bytes | None] = {}
        for key in (ConfigKey("config-0"), ConfigKey("config-1")):
            for info in await app._store.versions(key):
                version = await app._store.version(key, info.version)
                assert version is not None
                assert version.document is not None
                found[key.name, info.version] = app._vault.open_document(version.document, key, info.version)
        return found, sum(key.use is not KeyUse.CHAIN for key in await app._store.keys())
    finally:
        await app.stop()


@pytest.mark.parametrize(
    ("kind", "rounds"),
    [("sqlite", 4), ("file", 2)],
)
@pytest.mark.long
def test_a_service_that_is_killed_while_it_seals_anew_loses_nothing(kind: str, rounds: int, tmp_path: Path) -> None:
    """Whatever it was in the middle of: all that was acknowledged opens, the log verifies, one data key is left."""
    url = f"sqlite:///{tmp_path}/store.db" if kind == "sqlite" else f"file://{tmp_path}/store"
    rotations = 0
    for seed in range(rounds):
        told = killed(url, random.Random(seed).randrange(60, 120))
        found, keys = asyncio.run(look(url))
        assert keys == 1
        for line in told:
            if line.startswith("published ") and line.endswith("\n"):
                _, name, version, number = line.split()
                assert found[name, int(version)] == b'{"number": %s}' % number.encode()
        rotations += told.count("rotated\n")
    assert rotations or rounds == 1, "no rotation came to its end: nothing was cut in the middle of one"
