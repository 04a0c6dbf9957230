"""Payloads: made once, shared, bounded."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from threading import get_ident

import pytest

from config_client.crypto import decrypt
from config_client.types import Format
from config_service.delivery import sealed
from config_service.delivery.sealed import Payloads
from config_service.domain.documents import Document
from config_service.domain.errors import NotRenderableError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind

pytestmark = pytest.mark.anyio
KEY = b"k" * 32


def document(revision: int = 1, content: bytes | None = b'{"a": 1}') -> Document:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return Document(ConfigKey("orders"), 1, revision, ChangeKind.PUBLISHED, 1, moment, content)


async def test_a_payload_is_sealed_once_for_all_who_ask() -> None:
    """The very same bytes again: a fresh nonce for every request would wear the key out."""
    payloads = Payloads()
    first = payloads.sealed(document(), KEY, "id")
    assert decrypt(first, KEY) == b'{"a": 1}'
    assert payloads.sealed(document(), KEY, "id") is first


async def test_keys_and_revisions_have_payloads_of_their_own() -> None:
    """Nobody is given what was sealed for another key, or another version."""
    payloads = Payloads()
    mine, yours = payloads.sealed(document(), KEY, "mine"), payloads.sealed(document(), b"y" * 32, "yours")
    newer = payloads.sealed(document(2, b'{"a": 2}'), KEY, "mine")
    assert decrypt(yours, b"y" * 32) == decrypt(mine, KEY)
    assert decrypt(newer, KEY) == b'{"a": 2}'


async def test_the_least_recently_used_payload_falls_out_first() -> None:
    """The bytes stay under the capacity, and what is asked for stays."""
    payloads = Payloads(capacity=1000)
    kept = payloads.sealed(document(1), KEY, "id")
    for revision in range(2, 20):
        payloads.sealed(document(revision), KEY, "id")
        assert payloads.sealed(document(1), KEY, "id") is kept
        assert payloads.size <= 1000
    dropped = payloads.sealed(document(2), KEY, "id")
    assert decrypt(dropped, KEY) == b'{"a": 1}'


async def test_a_payload_over_the_whole_capacity_is_not_kept() -> None:
    """One huge document must not push everything else out."""
    payloads = Payloads(capacity=1000)
    kept = payloads.sealed(document(1), KEY, "id")
    payloads.sealed(document(2, b"{" + b" " * 2000 + b"}"), KEY, "id")
    assert payloads.sealed(document(1), KEY, "id") is kept


async def test_plaintext_is_rendered_once_and_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten requests at once render once, on another thread; JSON needs no rendering at all."""
    threads: list[int] = []
    render = sealed.render_document

    def noted(raw: bytes, fmt: Format) -> bytes:
        threads.append(get_ident())
        return render(raw, fmt)

    monkeypatch.setattr(sealed, "render_document", noted)
    payloads = Payloads()
    rendered = await asyncio.gather(*(payloads.rendered(document(), Format.YAML) for _ in range(10)))
    assert set(rendered) == {b"a: 1\n"}
    assert await payloads.rendered(document(), Format.JSON) == b'{"a": 1}'
    assert await payloads.rendered(document(), Format.YAML) == b"a: 1\n"
    assert len(threads) == 1
    assert threads[0] != get_ident()


async def test_a_document_without_a_faithful_form_stays_unrendered() -> None:
    """The error passes, and the next request is not blocked."""
    payloads = Payloads()
    for _ in range(2):
        with pytest.raises(NotRenderableError):
            await payloads.rendered(document(content=b'{"a": {"b": 1}, "a_b": 2}'), Format.ENV)


async def test_a_tombstone_has_nothing_to_seal() -> None:
    """Asking for it is a fault of the caller."""
    with pytest.raises(ValueError, match="tombstone"):
        Payloads().sealed(document(content=None), KEY, "id")
