"""The keyring: keys by id, keys of a purpose, and keys that are asked for anew while a token is rotated."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config_client._reloading import PAUSE, PAUSE_IN_VAIN
from config_client.crypto import Binding, Keyring, key_id, parse_header, seal, seal_bound
from config_client.errors import ConfigClientError, DecryptionError

OLD, NEW, FOREIGN, THIRD = (bytes([number]) * 32 for number in (1, 2, 3, 4))
DOCUMENT = b'{"password":"s3cr3t-canary"}'
BINDING = Binding("0192f3a4b5c6d7e8f9a0b1c2", "orders", "production", "main", 7, 42)
TIMEOUT = 20.0

Opener = Callable[[Keyring, bytes], bytes]


@dataclass
class KeySource:
    """Where an application keeps its keys: counts how often it is asked, and says what it is told to say."""

    keys: Sequence[bytes] = (OLD,)
    error: Exception | None = None
    asked: int = 0
    now: float = 1000.0
    ring: Keyring = field(init=False)

    def __post_init__(self) -> None:
        self.ring = Keyring([OLD], reload=self.reload, clock=lambda: self.now)

    def reload(self) -> Sequence[bytes]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.keys


def open_1(ring: Keyring, key: bytes) -> bytes:
    """Open a fresh payload of format 1 under ``key``."""
    return ring.open(seal(DOCUMENT, key))


def open_2(ring: Keyring, key: bytes) -> bytes:
    """Open a fresh payload of format 2 under ``key``."""
    return ring.open_bound(seal_bound(DOCUMENT, key, BINDING))[1]


both_formats = pytest.mark.parametrize("opened", [open_1, open_2], ids=["format 1", "format 2"])


def refused(opened: Opener, ring: Keyring, key: bytes) -> DecryptionError:
    """Return the error that opening ends in."""
    with pytest.raises(DecryptionError) as caught:
        opened(ring, key)
    return caught.value


# Asking for keys anew


@both_formats
def test_a_key_that_is_not_held_is_asked_for_and_used_at_once(opened: Opener) -> None:
    """The first payload under a rotated key opens: the ring is replaced and the payload tried once more."""
    source = KeySource(keys=(NEW, OLD))
    assert opened(source.ring, NEW) == DOCUMENT
    assert source.asked == 1
    assert source.ring.ids == (key_id(NEW), key_id(OLD))
    assert opened(source.ring, OLD) == DOCUMENT
    assert opened(source.ring, NEW) == DOCUMENT
    assert source.asked == 1
    assert parse_header(source.ring.seal_bound(DOCUMENT, BINDING)).key_id == key_id(NEW)


@both_formats
def test_a_key_that_is_no_longer_given_is_no_longer_held(opened: Opener) -> None:
    """After the overlap the old key is gone from the source, and what it sealed is refused."""
    source = KeySource(keys=(NEW,))
    assert opened(source.ring, NEW) == DOCUMENT
    assert source.ring.ids == (key_id(NEW),)
    assert key_id(NEW) in str(refused(opened, source.ring, OLD))


def test_keys_that_are_held_are_never_asked_for() -> None:
    """Reading costs no question, and neither does a payload that was altered under a key that is held."""
    source = KeySource()
    for _ in range(10):
        assert open_1(source.ring, OLD) == open_2(source.ring, OLD) == DOCUMENT
    payload = bytearray(seal_bound(DOCUMENT, OLD, BINDING))
    payload[-1] ^= 1
    with pytest.raises(DecryptionError, match="does not authenticate under key"):
        source.ring.open_bound(bytes(payload))
    with pytest.raises(DecryptionError, match="ends inside"):
        source.ring.open_bound(bytes(payload[:30]))
    with pytest.raises(DecryptionError, match="too short"):
        source.ring.open(b"")
    assert source.asked == 0


@both_formats
def test_without_a_source_an_unknown_key_is_an_error_at_once(opened: Opener) -> None:
    """A ring of fixed keys names the ids that it holds."""
    assert key_id(OLD) in str(refused(opened, Keyring([OLD]), NEW))


def test_the_source_is_asked_at_most_once_a_second() -> None:
    """A burst of unknown keys is one question; a second later the next need is asked for."""
    source = KeySource()
    for number in range(10, 60):
        refused(open_2, source.ring, bytes([number]) * 32)
    assert source.asked == 1
    source.now += PAUSE - 0.01
    refused(open_2, source.ring, NEW)
    assert source.asked == 1
    source.now += 0.01
    refused(open_2, source.ring, NEW)
    assert source.asked == 2


def test_a_need_that_was_not_met_is_not_asked_for_again_for_30_seconds() -> None:
    """A foreign key, or one that the source does not have yet, costs a question every half minute."""
    source = KeySource()
    refused(open_2, source.ring, NEW)
    for _ in range(29):
        source.now += PAUSE
        refused(open_2, source.ring, NEW)
    assert source.asked == 1
    source.now += PAUSE_IN_VAIN - 29 * PAUSE
    source.keys = (NEW, OLD)
    assert open_2(source.ring, NEW) == DOCUMENT
    assert source.asked == 2


def test_an_answer_that_changes_nothing_does_not_make_old_needs_new() -> None:
    """Two foreign keys that come in turns cost a question each, and not one for every payload."""
    source = KeySource()
    for number in range(20):
        refused(open_2, source.ring, (NEW, FOREIGN)[number % 2])
        source.now += PAUSE
    assert source.asked == 2


def test_the_same_payload_of_format_1_is_one_need() -> None:
    """Format 1 names no key; the payload itself, fetched again and again, is what is not asked for again."""
    source = KeySource()
    payload = seal(DOCUMENT, NEW)
    for _ in range(20):
        with pytest.raises(DecryptionError):
            source.ring.open(payload)
        source.now += PAUSE
    assert source.asked == 1
    refused(open_1, source.ring, NEW)
    assert source.asked == 2


def test_a_change_of_the_ring_makes_old_failures_worth_another_question() -> None:
    """What failed before the keys changed is asked for again, a second later, without the half minute."""
    source = KeySource()
    refused(open_2, source.ring, FOREIGN)
    source.now += PAUSE
    source.keys = (NEW, OLD)
    assert open_2(source.ring, NEW) == DOCUMENT
    source.now += PAUSE
    source.keys = (FOREIGN, NEW)
    assert open_2(source.ring, FOREIGN) == DOCUMENT
    assert source.asked == 3


def test_a_question_that_takes_long_counts_from_its_end() -> None:
    """A source that answers in five seconds is not asked again as soon as it has answered."""
    source = KeySource()

    def slow() -> Sequence[bytes]:
        source.asked += 1
        source.now += 5.0
        return (OLD,)

    source.ring = Keyring([OLD], reload=slow, clock=lambda: source.now)
    refused(open_2, source.ring, NEW)
    refused(open_2, source.ring, FOREIGN)
    assert source.asked == 1


@both_formats
def test_a_source_that_raises_leaves_the_keys_and_is_logged_by_type(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """The text of its error may hold a secret: neither the log nor the error of the payload shows it."""
    source = KeySource(error=RuntimeError("vault said s3cr3t-canary"))
    with caplog.at_level(logging.DEBUG):
        error = refused(opened, source.ring, NEW)
    assert error.__context__ is None
    assert error.__cause__ is None
    assert [record.getMessage() for record in caplog.records] == [
        "asking for the keys anew failed with RuntimeError; those held stay in use"
    ]
    assert caplog.records[0].exc_info is None
    assert "canary" not in f"{caplog.text} {error}"
    assert source.ring.ids == (key_id(OLD),)
    assert opened(source.ring, OLD) == DOCUMENT
    source.now += PAUSE_IN_VAIN
    source.error, source.keys = None, (NEW,)
    assert opened(source.ring, NEW) == DOCUMENT


@pytest.mark.parametrize(
    "nonsense",
    [(), b"\x05" * 32, "05" * 32, None, 5, [b"\x05" * 16], ["05" * 32], [OLD, b""], [None], [bytearray(32)]],
    ids=repr,
)
def test_a_source_that_returns_something_else_leaves_the_keys(
    nonsense: Sequence[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """No key, one key instead of several, text, keys of another size: logged by type, and never shown."""
    source = KeySource(keys=nonsense)
    error = refused(open_2, source.ring, NEW)
    assert source.ring.ids == (key_id(OLD),)
    assert open_2(source.ring, OLD) == DOCUMENT
    assert len(caplog.records) == 1
    assert "0505" not in f"{caplog.text} {error}"
    assert repr(b"\x05" * 8)[2:-1] not in f"{caplog.text} {error}"


def test_an_interrupt_while_the_source_is_asked_goes_through() -> None:
    """Ctrl-C ends the program; the ring is whole, and the next need is asked for."""
    source = KeySource()

    def interrupted() -> Sequence[bytes]:
        source.asked += 1
        if source.asked == 1:
            raise KeyboardInterrupt
        return (NEW,)

    source.ring = Keyring([OLD], reload=interrupted, clock=lambda: source.now)
    with pytest.raises(KeyboardInterrupt):
        open_2(source.ring, NEW)
    source.now += PAUSE_IN_VAIN
    assert open_2(source.ring, NEW) == DOCUMENT


def test_a_source_may_use_the_ring_itself() -> None:
    """A source that fetches its keys with the same client comes here again: no deadlock, and no question in it."""
    source = KeySource()

    def nested() -> Sequence[bytes]:
        source.asked += 1
        source.now += PAUSE_IN_VAIN
        refused(open_2, source.ring, NEW)
        refused(open_1, source.ring, FOREIGN)
        return (NEW, OLD)

    source.ring = Keyring([OLD], reload=nested, clock=lambda: source.now)
    assert open_2(source.ring, NEW) == DOCUMENT
    assert source.asked == 1


@both_formats
def test_threads_that_need_the_same_key_ask_once_and_all_get_it(opened: Opener) -> None:
    """Whoever comes while another asks waits for the answer, rather than to lose a change that it would open."""
    threads, results = [], []
    entered, release = threading.Event(), threading.Event()
    asked: list[int] = []

    def slow() -> Sequence[bytes]:
        asked.append(1)
        entered.set()
        assert release.wait(TIMEOUT)
        return (NEW, OLD)

    # Every look at this clock is 100 s after the last: no pause between two questions saves a second one.
    ring = Keyring([OLD], reload=slow, clock=itertools.count(0.0, 100.0).__next__)
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: results.append(opened(ring, NEW)), daemon=True))
        threads[-1].start()
        assert entered.wait(TIMEOUT)
    threads[-1].join(0.2)
    assert results == []
    assert all(thread.is_alive() for thread in threads)
    # Meanwhile those that need no new key do not wait.
    assert opened(ring, OLD) == DOCUMENT
    release.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert results == [DOCUMENT] * 8
    assert len(asked) == 1


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_was_forked_while_keys_were_asked_for_asks_itself() -> None:
    """The lock of a thread that does not exist in the child is not waited for."""
    entered, release = threading.Event(), threading.Event()
    parent = os.getpid()

    def source() -> Sequence[bytes]:
        if os.getpid() == parent:
            entered.set()
            assert release.wait(TIMEOUT)
        return (NEW,)

    ring = Keyring([OLD], reload=source)
    thread = threading.Thread(target=open_2, args=(ring, NEW), daemon=True)
    thread.start()
    assert entered.wait(TIMEOUT)
    child = os.fork()
    if child == 0:  # nothing of the test runner may run here
        signal.alarm(int(TIMEOUT))
        try:
            os._exit(0 if open_2(ring, NEW) == DOCUMENT else 1)
        finally:
            os._exit(2)
    status = os.waitpid(child, 0)[1]
    release.set()
    thread.join(TIMEOUT)
    assert os.waitstatus_to_exitcode(status) == 0


# Keys of a purpose


def test_a_derived_ring_holds_hkdf_keys_of_its_purpose() -> None:
    """RFC 5869 with SHA-256, no salt, and the purpose as info behind a prefix of ours: another program can do it."""
    info = b"config-client derived key v1: cache"
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(OLD)
    ring = Keyring([OLD]).derived(b"cache")
    assert ring.ids == (key_id(derived),)
    assert Keyring([derived]).open_bound(ring.seal_bound(DOCUMENT, BINDING)) == (BINDING, DOCUMENT)
    assert ring.open(seal(DOCUMENT, derived)) == DOCUMENT


def test_purposes_do_not_open_each_other() -> None:
    """A value of the cache is no payload of the wire, nor of another purpose, and the other way around."""
    root = Keyring([OLD])
    rings = [root, root.derived(b"a"), root.derived(b"b"), root.derived(b""), root.derived(b"a").derived(b"a")]
    assert len({ring.ids for ring in rings}) == len(rings)
    for sealer in rings:
        payload = sealer.seal_bound(DOCUMENT, BINDING)
        for opener in rings:
            if opener is sealer:
                assert opener.open_bound(payload) == (BINDING, DOCUMENT)
            else:
                with pytest.raises(DecryptionError):
                    opener.open_bound(payload)


def test_a_derived_ring_opens_what_another_of_the_same_purpose_sealed() -> None:
    """After a restart the cache opens again, under the older of two keys too."""
    payload = Keyring([OLD]).derived(b"cache").seal_bound(DOCUMENT, BINDING)
    assert Keyring([NEW, OLD]).derived(b"cache").open_bound(payload) == (BINDING, DOCUMENT)


def test_a_derived_ring_follows_the_keys_it_was_derived_from() -> None:
    """After a rotation the cache seals under the new key, without being made anew; what the old one sealed opens."""
    source = KeySource(keys=(NEW, OLD))
    derived = source.ring.derived(b"cache")
    payload = derived.seal_bound(DOCUMENT, BINDING)
    assert derived.ids == Keyring([OLD]).derived(b"cache").ids
    assert open_2(source.ring, NEW) == DOCUMENT
    assert derived.ids == Keyring([NEW, OLD]).derived(b"cache").ids
    assert derived.open_bound(payload) == (BINDING, DOCUMENT)
    assert parse_header(derived.seal_bound(DOCUMENT, BINDING)).key_id == derived.ids[0]


def test_a_derived_ring_asks_for_keys_too() -> None:
    """A cache that a newer process sealed opens when the source has the new key; both rings then have it."""
    source = KeySource(keys=(NEW,))
    payload = Keyring([NEW]).derived(b"cache").seal_bound(DOCUMENT, BINDING)
    assert source.ring.derived(b"cache").open_bound(payload) == (BINDING, DOCUMENT)
    assert source.ring.ids == (key_id(NEW),)
    assert source.asked == 1


# Nothing secret is shown


def test_a_ring_and_all_that_it_holds_show_ids_only() -> None:
    """A debugger or error tracker that prints whatever it can reach finds no key."""
    source = KeySource(keys=(NEW, OLD))
    open_2(source.ring, NEW)
    derived = source.ring.derived(b"cache")
    seen: list[object] = []
    pending: list[object] = [source.ring, derived]
    while pending:
        one = pending.pop()
        if any(one is each for each in seen) or isinstance(one, (bytes, str, type)):
            continue
        seen.append(one)
        shown = f"{one} {one!r}"
        for key in (OLD, NEW):
            assert key.hex() not in shown
            assert repr(key)[2:-1] not in shown
        slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
        pending += [getattr(one, name, None) for name in slots]
        if isinstance(one, dict):
            pending += one.values()
    assert repr(source.ring) == f"Keyring(ids={[key_id(NEW), key_id(OLD)]})"
    assert len(seen) > 8


def test_a_ring_cannot_be_pickled_or_copied() -> None:
    """Keys do not leave the process by accident, in a task queue or a disk cache; the error says what to do."""
    ring = Keyring([OLD])
    for each in (ring, ring.derived(b"cache")):
        for copied in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="keys are not pickled: create the client in the process"):
                copied(each)


@pytest.mark.parametrize("keys", [[], [b"short"], ["01" * 32], b"\x01" * 32, [None]], ids=repr)
def test_a_ring_of_something_else_is_refused(keys: Sequence[bytes]) -> None:
    """A mistake of the options is found when the client is made."""
    with pytest.raises(ConfigClientError) as caught:
        Keyring(keys)
    assert "0101" not in str(caught.value)
