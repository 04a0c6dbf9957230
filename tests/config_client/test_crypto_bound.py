"""Sealed format 2: the header to the byte, what it refuses, and that nothing of a payload can be changed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.crypto import Binding, Keyring, key_id, parse_header, seal, seal_bound
from config_client.errors import ConfigClientError, DecryptionError

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
DOCUMENT = b'{"password":"s3cr3t-canary"}'
EPOCH = "0192f3a4b5c6d7e8f9a0b1c2"
BINDING = Binding(EPOCH, "orders", "production", "feature/größe", 7, 42)
HEADER_SIZE = 1 + 8 + 12 + (2 + 24) + (2 + 6) + (2 + 10) + (2 + 15) + 8 + 8

TEXTS = st.text(max_size=60)
NUMBERS = st.integers(0, 2**63 - 1)
BINDINGS = st.builds(Binding, TEXTS, TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS)


def bound_to(part: str, value: str | int) -> Binding:
    """Return a binding of which one part is ``value``."""
    return Binding(**{**BINDING._asdict(), part: value})


def test_the_header_is_that_of_the_protocol_to_the_byte() -> None:
    """0x02, key id, nonce, four texts behind their lengths, two numbers, then ciphertext and tag."""
    payload = seal_bound(DOCUMENT, KEY, BINDING)
    expected = b"\x02" + bytes.fromhex(key_id(KEY)) + payload[9:21]
    for text in (EPOCH, "orders", "production", "feature/größe"):
        expected += len(text.encode()).to_bytes(2, "big") + text.encode()
    expected += (7).to_bytes(8, "big") + (42).to_bytes(8, "big")
    assert payload[:HEADER_SIZE] == expected
    assert len(payload) == HEADER_SIZE + len(DOCUMENT) + 16


def test_a_header_is_read_without_a_key() -> None:
    """Whoever routes or stores payloads sees what they claim to be; the nonce and the size lead to the ciphertext."""
    payload = seal_bound(DOCUMENT, KEY, BINDING)
    header = parse_header(payload)
    assert (header.key_id, header.nonce, header.binding) == (key_id(KEY), payload[9:21], BINDING)
    assert header.size == HEADER_SIZE


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=500), st.binary(min_size=32, max_size=32), BINDINGS)
def test_what_was_sealed_opens_to_the_same_bytes_and_binding(plaintext: bytes, key: bytes, binding: Binding) -> None:
    """Opening undoes sealing, for any bytes under any key, bound to anything that a header can hold."""
    payload = seal_bound(plaintext, key, binding)
    assert Keyring([key]).open_bound(payload) == (binding, plaintext)
    assert parse_header(payload).binding == binding
    assert Keyring([key]).open_bound(Keyring([key]).seal_bound(plaintext, binding)) == (binding, plaintext)


def test_every_single_flipped_bit_is_refused() -> None:
    """Header, ciphertext and tag: there is no bit of a payload whose change goes unnoticed."""
    ring = Keyring([KEY])
    payload = seal_bound(DOCUMENT, KEY, BINDING)
    for bit in range(len(payload) * 8):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecryptionError):
            ring.open_bound(bytes(changed))


def test_every_cut_and_every_added_byte_is_refused() -> None:
    """A payload is whole or it is nothing, wherever the connection broke."""
    ring = Keyring([KEY])
    payload = seal_bound(DOCUMENT, KEY, BINDING)
    for size in range(len(payload)):
        with pytest.raises(DecryptionError):
            ring.open_bound(payload[:size])
    for byte in (0, 2, 255):
        with pytest.raises(DecryptionError):
            ring.open_bound(payload + bytes([byte]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"\x02" + rest))
def test_arbitrary_bytes_raise_nothing_but_a_decryption_error(payload: bytes) -> None:
    """Whatever comes from the network, no other exception leaves, neither from the header nor from the ring."""
    with pytest.raises(DecryptionError) as caught:
        Keyring([KEY]).open_bound(payload)
    assert caught.value.__context__ is None
    with contextlib.suppress(DecryptionError):
        assert len(payload) >= parse_header(payload).size + 16


@settings(max_examples=100, deadline=None)
@given(BINDINGS, BINDINGS)
def test_two_bindings_never_share_a_header(one: Binding, another: Binding) -> None:
    """Letters cannot move from one field into the next: the lengths are part of what is authenticated."""
    headers = [seal_bound(b"", KEY, binding)[21:-16] for binding in (one, another)]
    assert (headers[0] == headers[1]) == (one == another)
    if one != another:
        assert not headers[0].startswith(headers[1])
        assert not headers[1].startswith(headers[0])


def test_a_nonce_is_never_reused() -> None:
    """Sealing the same document twice gives another nonce, and other bytes behind the header."""
    payloads = [seal_bound(DOCUMENT, KEY, BINDING) for _ in range(100)]
    assert len({parse_header(payload).nonce for payload in payloads}) == 100
    assert len({payload[HEADER_SIZE:] for payload in payloads}) == 100


def test_neither_format_opens_as_the_other() -> None:
    """What the content type says decides, and a wrong one is an error, never a document."""
    ring = Keyring([KEY])
    with pytest.raises(DecryptionError, match="does not authenticate"):
        ring.open(seal_bound(DOCUMENT, KEY, BINDING))
    for _ in range(300):  # one nonce in 256 begins with 0x02
        with pytest.raises(DecryptionError):
            ring.open_bound(seal(DOCUMENT, KEY))


@pytest.mark.parametrize("part", ["epoch", "name", "environment", "label"])
def test_a_text_takes_1024_bytes_and_no_more(part: str) -> None:
    """The bound counts bytes of UTF-8, and the writer keeps to what the reader takes."""
    fitting = bound_to(part, "ü" * 512)
    assert Keyring([KEY]).open_bound(seal_bound(DOCUMENT, KEY, fitting)) == (fitting, DOCUMENT)
    with pytest.raises(ConfigClientError, match=f"bound to this {part}: at most 1024 bytes"):
        seal_bound(DOCUMENT, KEY, bound_to(part, "ü" * 512 + "x"))


def test_a_text_that_is_no_unicode_is_not_sealed() -> None:
    """Half a surrogate pair has no UTF-8, and the error carries neither text nor cause."""
    with pytest.raises(ConfigClientError, match="this label") as caught:
        seal_bound(DOCUMENT, KEY, BINDING._replace(label="\ud800"))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("part", ["version", "revision"])
def test_a_number_is_from_0_to_2_to_the_63_less_1(part: str) -> None:
    """What a signed 64-bit integer holds, in every language and database."""
    for number in (0, 2**63 - 1):
        fitting = bound_to(part, number)
        assert Keyring([KEY]).open_bound(seal_bound(DOCUMENT, KEY, fitting)) == (fitting, DOCUMENT)
    for number in (-1, 2**63):
        with pytest.raises(ConfigClientError, match=f"bound to {part} {number}"):
            seal_bound(DOCUMENT, KEY, bound_to(part, number))


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_only_a_key_of_32_bytes_seals(size: int) -> None:
    """A 16-byte key would seal under AES-128 in silence."""
    with pytest.raises(ConfigClientError, match="expected 32 bytes"):
        seal_bound(DOCUMENT, bytes(size), BINDING)


def test_the_header_picks_the_key() -> None:
    """During a rotation both keys open what they sealed; the preferred one seals."""
    ring = Keyring([OTHER, KEY])
    assert ring.open_bound(seal_bound(DOCUMENT, KEY, BINDING)) == (BINDING, DOCUMENT)
    assert ring.open_bound(seal_bound(DOCUMENT, OTHER, BINDING)) == (BINDING, DOCUMENT)
    assert parse_header(ring.seal_bound(DOCUMENT, BINDING)).key_id == key_id(OTHER)


def test_a_key_that_is_not_held_is_named_beside_those_that_are() -> None:
    """The text tells which key is needed, which are held, and what to do; there is no cause, and no secret."""
    payload = seal_bound(DOCUMENT, OTHER, BINDING)
    with pytest.raises(DecryptionError) as caught:
        Keyring([KEY]).open_bound(payload)
    assert str(caught.value) == (
        f"sealed with key {key_id(OTHER)}; this client holds ['{key_id(KEY)}']: "
        "set CONFIG_SERVICE_KEY to the token's current key"
    )
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_no_refusal_shows_a_secret() -> None:
    """Neither key, document nor ciphertext is in the text of an error, whatever was wrong."""
    payload = seal_bound(DOCUMENT, KEY, BINDING)
    damaged = [payload[:-1], payload[:40], payload[:5], b"", b"\x03" + payload[1:], payload[:-1] + b"!", payload + b"x"]
    damaged += [seal_bound(DOCUMENT, OTHER, BINDING), payload[:30] + b"\xff\xff" + payload[32:]]
    for each in damaged:
        with pytest.raises(DecryptionError) as caught:
            Keyring([KEY]).open_bound(each)
        shown = f"{caught.value} {caught.value!r} {caught.value.args} {vars(caught.value)}"
        for secret in (KEY, OTHER, DOCUMENT, payload[HEADER_SIZE:]):
            assert secret.hex() not in shown
            assert repr(secret) not in shown
        assert "canary" not in shown
