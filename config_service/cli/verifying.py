"""`audit verify --store-url`: verifying a store that no service uses, under its lock.

Opens a store; nothing here is loaded before it is needed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping

from ..api.sealing_models import verification_line
from ..app import utc_now
from ..domain.errors import StoreCorruptError
from ..findings import Anchor
from ..security.at_rest import Vault
from ..settings import Settings
from ..store.urls import create_store
from ..unlocking import KeyHolder
from ..verifying import Verification
from .starting import start_failures

_Lines = Iterable[Mapping[str, object]]


def verify_store(
    store_url: str, anchor: str | None, watch: Callable[[_Lines], Mapping[str, object]]
) -> Mapping[str, object]:
    """Verify the store of ``store_url`` and return its report; ``watch`` is given the lines that the API would send.

    Raises CommandError, or InvalidRequestError for ``anchor``.
    """
    wanted = None if anchor is None else Anchor.parse(anchor)
    with start_failures(), asyncio.Runner() as runner:
        lines = _lines(Settings.load(store_url=store_url), wanted)
        try:
            return watch(_driven(runner, lines))
        finally:
            runner.run(lines.aclose())


def _driven(runner: asyncio.Runner, lines: AsyncGenerator[bytes]) -> Iterator[Mapping[str, object]]:
    """Yield what ``lines`` say, each as soon as it is there."""

    async def following() -> bytes | None:
        return await anext(lines, None)

    while (line := runner.run(following())) is not None:
        yield json.loads(line)


async def _lines(settings: Settings, anchor: Anchor | None) -> AsyncGenerator[bytes]:
    store, vault = create_store(settings.store_url, create=False), Vault(*settings.all_master_keys())
    keys = KeyHolder(store, vault, utc_now)
    await store.open()
    try:
        if not await store.keys():
            raise StoreCorruptError(
                "the store has no keys: it is new, or older than data keys, or they were taken out; a service that is "
                "started on an older one gives it some"
            )
        await keys.unlock()
        verification = Verification(store, vault, keys.hold, anchor)
        async for progress in verification.run():
            yield verification_line(progress)
        yield verification_line(verification.report)
    finally:
        await store.close()
