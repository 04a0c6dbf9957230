"""Sealing and opening: the vectors of another language, the round trip, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_client.crypto import (
    GCM_TAG_SIZE,
    KEY_ID_SIZE,
    KEY_SIZE,
    NONCE_SIZE,
    Keyring,
    decrypt,
    key_id,
    parse_encryption_key,
    parse_encryption_keys,
    seal,
)
from config_client.errors import ConfigClientError, DecryptionError

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
DOCUMENT = b'{"password":"s3cr3t-canary"}'


@dataclass(frozen=True)
class Vector:
    """One sealed value and what opening it must do."""

    name: str
    key: str
    wire: bytes
    expect: str
    plaintext: bytes


def read_vectors() -> list[Vector]:
    """Return the vectors of sealed format 1, made with Go's standard library."""
    path = Path(__file__).parents[1] / "vectors" / "sealed_v1.json"
    return [
        Vector(
            entry["name"],
            entry["key"],
            bytes.fromhex(entry["wire"]),
            entry["expect"],
            entry.get("plaintext_utf8", "").encode(),
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))["vectors"]
    ]


VECTORS = read_vectors()


def named(vector: Vector) -> str:
    """Return what a vector is called in the list of tests."""
    return vector.name


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and everything that is reachable from it as cause or context."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__]
            yield each


def assert_silent(error: BaseException, *secrets: bytes | str) -> None:
    """Assert that no text of ``error`` or of its chain holds a secret, as text or as hex."""
    for each in chain(error):
        text = f"{each} {each!r} {each.args} {vars(each)}"
        for secret in secrets:
            assert (secret.hex() if isinstance(secret, bytes) else secret) not in text
            assert str(secret) not in text


def test_there_are_twenty_vectors_of_three_outcomes() -> None:
    """No vector was lost on the way here, and each names an outcome that the test below knows."""
    assert len(VECTORS) == 20
    assert {vector.expect for vector in VECTORS} == {"ok", "authentication failure", "too short"}


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_a_vector_of_another_language_opens_or_is_refused(vector: Vector) -> None:
    """What Go sealed opens here to the same bytes; what is damaged, short or foreign is a DecryptionError."""
    key = parse_encryption_key(vector.key)
    if vector.expect == "ok":
        assert decrypt(vector.wire, key) == vector.plaintext
        return
    with pytest.raises(DecryptionError) as caught:
        decrypt(vector.wire, key)
    assert ("too short" if vector.expect == "too short" else "does not authenticate") in str(caught.value)
    assert_silent(caught.value, key, vector.key)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2000), st.binary(min_size=32, max_size=32))
def test_what_was_sealed_opens_to_the_same_bytes(plaintext: bytes, key: bytes) -> None:
    """Opening undoes sealing, for any bytes under any key, and adds exactly nonce and tag."""
    payload = seal(plaintext, key)
    assert len(payload) == NONCE_SIZE + len(plaintext) + GCM_TAG_SIZE
    assert decrypt(payload, key) == plaintext


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_single_flipped_bit_is_noticed(data: st.DataObject) -> None:
    """Nonce, ciphertext and tag are all authenticated."""
    payload = bytearray(seal(DOCUMENT, KEY))
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError):
        decrypt(bytes(payload), KEY)


def test_the_sizes_are_those_of_the_wire_format() -> None:
    """The published constants: a 96-bit nonce, a 128-bit tag, a 256-bit key, a 64-bit key id."""
    assert (NONCE_SIZE, GCM_TAG_SIZE, KEY_SIZE, KEY_ID_SIZE) == (12, 16, 32, 8)


def test_a_nonce_is_never_reused() -> None:
    """Sealing the same document twice gives different bytes throughout."""
    payloads = {seal(DOCUMENT, KEY) for _ in range(100)}
    assert len({payload[:NONCE_SIZE] for payload in payloads}) == 100
    assert len({payload[NONCE_SIZE:] for payload in payloads}) == 100


@pytest.mark.parametrize("length", [0, 1, 12, 27])
def test_fewer_than_28_bytes_are_too_short(length: int) -> None:
    """A body that cannot even hold nonce and tag is told apart from a wrong key."""
    with pytest.raises(DecryptionError, match=f"{length} bytes is too short"):
        decrypt(bytes(length), KEY)


def test_28_bytes_are_judged_by_their_tag() -> None:
    """The shortest possible payload is an empty document, not an error."""
    assert decrypt(seal(b"", KEY), KEY) == b""
    with pytest.raises(DecryptionError, match="does not authenticate"):
        decrypt(bytes(28), KEY)


def test_a_failure_names_key_ids_and_no_secret() -> None:
    """The error helps to find the right key, and holds neither key, payload nor a cause."""
    payload = seal(DOCUMENT, OTHER)
    with pytest.raises(DecryptionError) as caught:
        decrypt(payload, KEY)
    assert key_id(KEY) in str(caught.value)
    assert list(chain(caught.value)) == [caught.value]
    assert_silent(caught.value, KEY, OTHER, payload, "s3cr3t-canary")


@pytest.mark.parametrize("text", ["00" * 32, "aB" * 32, f"  {'0f' * 32}\n"])
def test_64_hex_characters_are_a_key(text: str) -> None:
    """Either case, and white space around it, as it comes out of a file or an environment."""
    assert parse_encryption_key(text) == bytes.fromhex(text.strip())


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "64 hex"),
        ("ab" * 31, "64 hex"),
        ("ab" * 33, "64 hex"),
        ("ab" * 31 + "a", "64 hex"),
        ("zz" * 32, "hexadecimal"),
        ("0x" + "ab" * 31, "hexadecimal"),
        ("ab " * 21 + "a", "hexadecimal"),
        ("ab" * 31 + "٣٣", "hexadecimal"),
        ("ab" * 31 + "b\n ", "64 hex"),
        ("ab" * 31 + "\0a", "hexadecimal"),
    ],
)
def test_anything_else_is_refused_without_repeating_it(text: str, fragment: str) -> None:
    """Wrong length and wrong alphabet are told apart; the text is not shown."""
    with pytest.raises(ConfigClientError, match=fragment) as caught:
        parse_encryption_key(text)
    if text:
        assert_silent(caught.value, text)
    assert "abab" not in str(caught.value)


def test_several_keys_are_parsed_in_order() -> None:
    """A comma-separated list is a rotation: the key to prefer comes first."""
    assert parse_encryption_keys(KEY.hex()) == (KEY,)
    assert parse_encryption_keys(f"{OTHER.hex()}, {KEY.hex()}") == (OTHER, KEY)


@pytest.mark.parametrize("text", ["", ",", f"{'ab' * 32},", f"{'ab' * 32},short"])
def test_a_list_with_a_malformed_key_is_refused(text: str) -> None:
    """A stray comma or a cut key is an error and not silently skipped."""
    with pytest.raises(ConfigClientError, match="64 hex") as caught:
        parse_encryption_keys(text)
    assert "abab" not in str(caught.value)


def test_a_key_id_is_the_start_of_its_hash() -> None:
    """The id is the first 8 bytes of SHA-256 of the key, in hex."""
    assert key_id(KEY) == sha256(KEY).hexdigest()[:16]
    assert key_id(KEY) != key_id(OTHER)


def test_a_ring_opens_what_any_of_its_keys_sealed() -> None:
    """During a rotation payloads under the old and under the new key both open."""
    ring = Keyring([KEY, OTHER])
    assert ring.ids == (key_id(KEY), key_id(OTHER))
    assert ring.open(seal(DOCUMENT, KEY)) == DOCUMENT
    assert ring.open(seal(DOCUMENT, OTHER)) == DOCUMENT


def test_a_ring_that_holds_no_fitting_key_names_those_it_has() -> None:
    """The error lists the ids of all keys that were tried, and has no cause."""
    with pytest.raises(DecryptionError) as caught:
        Keyring([KEY, OTHER]).open(seal(DOCUMENT, bytes(32)))
    assert key_id(KEY) in str(caught.value)
    assert key_id(OTHER) in str(caught.value)
    assert list(chain(caught.value)) == [caught.value]


def test_a_ring_shows_ids_only() -> None:
    """Neither repr nor attributes show a key."""
    ring = Keyring([KEY])
    assert repr(ring) == f"Keyring(ids=['{key_id(KEY)}'])"
    assert not hasattr(ring, "__dict__")
    assert KEY not in [getattr(ring, name, None) for name in dir(ring)]


def test_an_empty_ring_is_refused() -> None:
    """A client without a key is a mistake of its options, found at once."""
    with pytest.raises(ConfigClientError, match="at least one key"):
        Keyring([])


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    """AES-128 and AES-192 keys would work with the library; the wire format is AES-256 only."""
    with pytest.raises(ConfigClientError, match="64 hex") as caught:
        Keyring([b"\xee" * size])
    assert "ee" * 8 not in str(caught.value)
    with pytest.raises(ConfigClientError, match="64 hex"):
        decrypt(bytes(40), b"\xee" * size)


@pytest.mark.parametrize("size", [0, 16, 24, 31, 33])
def test_only_a_key_of_32_bytes_seals(size: int) -> None:
    """A 16-byte key would seal under AES-128 in silence; every other size than 32 is refused by name of the rule."""
    with pytest.raises(ConfigClientError, match="expected 32 bytes"):
        seal(DOCUMENT, bytes(size))
