"""Payloads as they leave the service, made once and kept: sealed for a token's key, or rendered as plaintext.

Knows documents, keys and bytes. Knows nothing of HTTP or stores.

Each payload is sealed once per key, encoding and revision and shared by all who ask: a fresh nonce for every request
would wear the key out, and sealing would cost every read. What is least recently used falls out when the bytes exceed
the capacity; versions that nobody asks for any more go that way.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from config_client.crypto import seal
from config_client.types import Format

from ..background import beside
from ..domain.documents import Document, render_document

CAPACITY: Final = 64 * 1024 * 1024
"""Bytes of payloads to keep, unless told otherwise."""
SEALED_ENCODING: Final = "1"
"""Sealed format 1 in entity tags."""
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

    @property
    def size(self) -> int:
        """Bytes kept now, bookkeeping included."""
        return self._size

    def sealed(self, document: Document, key: bytes, key_id: str) -> bytes:
        """Return the content of ``document`` sealed in format 1 under ``key``, whose id is ``key_id``.

        A tombstone has no content to seal: ValueError.
        """
        wanted = _PayloadId(key_id, SEALED_ENCODING, document.revision)
        payload = self._find(wanted)
        if payload is None:
            payload = seal(_content(document), key)
            self._keep(wanted, payload)
        return payload

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

    def _find(self, wanted: _PayloadId) -> bytes | None:
        payload = self._kept.get(wanted)
        if payload is not None:
            self._kept.move_to_end(wanted)
        return payload

    def _keep(self, made: _PayloadId, payload: bytes) -> None:
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
