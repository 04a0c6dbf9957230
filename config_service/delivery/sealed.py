"""Payloads as they leave the service, made once and kept: sealed for a token's key, or rendered as plaintext.

Knows documents, keys and bytes. Knows nothing of HTTP or stores.

Each payload is sealed once per key, encoding and revision and shared by all who ask: a fresh nonce for every request
would wear the key out, and sealing would cost every read. The events that carry a payload are kept beside it. What is
least recently used falls out when the bytes exceed the capacity; versions that nobody asks for any more go that way.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config_client.crypto import Binding, seal, seal_bound
from config_client.types import Format

from ..background import beside
from ..domain.documents import Document, render_document

CAPACITY: Final = 64 * 1024 * 1024
"""Bytes of payloads to keep, unless told otherwise."""
SEALED_ENCODING: Final = "1"
"""Sealed format 1 in entity tags."""
BOUND_ENCODING: Final = "2"
"""Sealed format 2 in entity tags."""
PLAIN_KEY_ID: Final = "plain"
"""Stands for a key id in the entity tags of plaintext."""
_ENTRY_OVERHEAD: Final = 256


@dataclass(frozen=True, slots=True)
class _PayloadId:
    """What a payload is of. A revision belongs to exactly one version of one config."""

    key_id: str
    encoding: str
    revision: int


class Payloads:
    """The payloads of documents, bounded by bytes."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self._kept: OrderedDict[_PayloadId, bytes] = OrderedDict()
        self._rendering = asyncio.Lock()
        self.made: Final[Counter[str]] = Counter()
        """How many payloads were made, by encoding: ``1`` and ``2`` were sealed, the others were not."""
        self.found = 0
        """How many were there already."""

    @property
    def size(self) -> int:
        """Bytes kept now, bookkeeping included."""
        return self._size

    def sealed(self, document: Document, key: bytes, key_id: str) -> bytes:
        """Return the content of ``document`` sealed in format 1 under ``key``, whose id is ``key_id``.

        A tombstone has no content to seal: ValueError.
        """
        return self._made_once(
            _PayloadId(key_id, SEALED_ENCODING, document.revision), lambda: seal(_content(document), key)
        )

    def bound(self, document: Document, epoch: str, key: bytes, key_id: str) -> bytes:
        """Return the content of ``document`` sealed in format 2: bound to its place in the history of ``epoch``.

        A tombstone has no content to seal: ValueError.
        """
        place, version, revision = document.key, document.version, document.revision
        binding = Binding(epoch, place.name, place.environment, place.label, version, revision)
        return self._made_once(
            _PayloadId(key_id, BOUND_ENCODING, revision), lambda: seal_bound(_content(document), key, binding)
        )

    def framed(self, document: Document, event: str, key_id: str, make: Callable[[], bytes]) -> bytes:
        """Return what ``make`` makes of ``document``, sealed under key ``key_id``, for events ``event``."""
        return self._made_once(_PayloadId(key_id, f"event {event}", document.revision), make)

    async def rendered(self, document: Document, fmt: Format) -> bytes:
        """Return the content of ``document`` as plaintext in ``fmt``. Raises NotRenderableError.

        Rendering runs on a thread, one at a time: a large document takes seconds as YAML, and reads must not wait.
        """
        content = _content(document)
        if fmt is Format.JSON:
            return content
        wanted = _PayloadId(PLAIN_KEY_ID, fmt.value, document.revision)
        payload = self._find(wanted)
        if payload is None:
            async with self._rendering:
                payload = self._find(wanted)
                if payload is None:
                    payload = await beside(lambda: render_document(content, fmt))
                    self._keep(wanted, payload)
        return payload

    def _made_once(self, wanted: _PayloadId, make: Callable[[], bytes]) -> bytes:
        payload = self._find(wanted)
        if payload is None:
            payload = make()
            self._keep(wanted, payload)
        return payload

    def _find(self, wanted: _PayloadId) -> bytes | None:
        payload = self._kept.get(wanted)
        if payload is not None:
            self.found += 1
            self._kept.move_to_end(wanted)
        return payload

    def _keep(self, made: _PayloadId, payload: bytes) -> None:
        self.made[made.encoding] += 1
        cost = len(payload) + _ENTRY_OVERHEAD
        if cost > self._capacity:
            return
        self._kept[made] = payload
        self._size += cost
        while self._size > self._capacity:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped) + _ENTRY_OVERHEAD


def _content(document: Document) -> bytes:
    if document.content is None:
        raise ValueError(f"{document.key} version {document.version} is a tombstone: it has no content")
    return document.content
