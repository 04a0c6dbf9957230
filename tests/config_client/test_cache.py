"""The cache: what it keeps and for how long, that nothing readable reaches the disk, and that no disk can break it."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from config_client import _cache_files
from config_client.cache import MAX_CLOCK_SKEW, Cache, CachedValue
from config_client.crypto import Binding, Keyring, parse_header
from config_client.protocol import Position

KEY, NEW_KEY, OTHER_KEY = bytes(32), bytes([1]) * 32, bytes([2]) * 32
EPOCH, LATER_EPOCH = "0192f3a4b5c6d7e8f9a0b1c2", "0292f3a4b5c6d7e8f9a0b1c2"
DOCUMENT = b'{"password":"s3cr3t-canary"}'
NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
HOST = "https://config.test"
PATIENCE = 30.0
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs the files of POSIX")


def value(revision: int = 1, *, epoch: str = EPOCH, document: bytes = DOCUMENT, **fields: Any) -> CachedValue:
    """Return a value at ``revision``, which is its version too."""
    made = CachedValue(document, "default", "main", revision, Position(epoch, revision), NOW)
    return made._replace(**fields)


class Clock:
    """Seconds since 1970, moved by hand."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a cache keeps its entries; not there yet."""
    return tmp_path / "deep" / "cache"


@pytest.fixture
def make(directory: Path, clock: Clock) -> Callable[..., Cache]:
    """Make caches over the one directory."""

    def build(*keys: bytes, host: str = HOST, max_age: float = 3600.0, where: Any = directory) -> Cache:
        return Cache(where, host=host, keyring=Keyring(keys or (KEY,)), max_age=max_age, clock=clock)

    return build


@pytest.fixture(params=["by handle", "by path"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with directories opened as handles, and as on platforms that have none."""
    if request.param == "by path":
        monkeypatch.setattr(_cache_files, "_HAS_DIRECTORY_HANDLES", False)


def entries(directory: Path) -> list[Path]:
    """Return the files of a directory."""
    return sorted(directory.iterdir()) if directory.exists() else []


def only(directory: Path) -> Path:
    """Return the one file of a directory."""
    (entry,) = entries(directory)
    return entry


# --- what is kept


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    "stored",
    [
        value(7),
        value(document=b""),
        value(document=bytes(range(256)) * 5000),
        value(version=None, position=None),
        value(environment="", label="", version=None, position=None),
        value(environment="prod", label="feature/x", revision=2**63 - 1),
        value(fetched_at=NOW + timedelta(milliseconds=123)),
    ],
    ids=["plain", "empty", "large", "unknown position", "foreign", "longest", "milliseconds"],
)
def test_what_was_stored_is_loaded(make: Callable[..., Cache], stored: CachedValue) -> None:
    """Document, environment, label, version, position and time come back as they were, in another process too."""
    make().store("orders", None, None, stored)
    assert make().load("orders", None, None) == stored


def test_the_last_store_wins_and_leaves_one_file(make: Callable[..., Cache], directory: Path) -> None:
    """An entry is replaced as a whole; no temporary file stays."""
    cache = make()
    for revision in range(1, 4):
        cache.store("orders", None, None, value(revision))
    loaded = cache.load("orders", None, None)
    assert loaded is not None
    assert loaded.version == 3
    assert len(entries(directory)) == 1


def test_the_same_position_may_be_stored_again_with_a_later_time(make: Callable[..., Cache]) -> None:
    """What is confirmed to be current starts to age anew."""
    cache = make()
    cache.store("orders", None, None, value())
    cache.store("orders", None, None, value(fetched_at=NOW + timedelta(seconds=60)))
    loaded = cache.load("orders", None, None)
    assert loaded is not None
    assert loaded.fetched_at == NOW + timedelta(seconds=60)


def test_an_entry_answers_only_the_question_it_was_stored_for(make: Callable[..., Cache]) -> None:
    """Another name, environment, label, host or key is another place, also where the texts join to the same."""
    make().store("orders", "prod", "main", value())
    assert make().load("orders", "prod", "main") == value()
    for question in (
        ("order", "prod", "main"),
        ("orders", "pro", "main"),
        ("ordersprod", "main", None),
        ("orders", None, "main"),
        ("orders", "prod", None),
        ("orders", None, None),
        ("orders", "main", "prod"),
    ):
        assert make().load(*question) is None, question
    assert make(host="https://other.test").load("orders", "prod", "main") is None
    assert make(host=f"{HOST},https://other.test").load("orders", "prod", "main") is None
    assert make(OTHER_KEY).load("orders", "prod", "main") is None
    assert make().load("orders", "prod", "main") == value()


def test_an_empty_environment_is_one_that_was_not_named(make: Callable[..., Cache]) -> None:
    """As in GetOptions."""
    make().store("orders", "", "", value())
    assert make().load("orders", None, None) == value()


def test_the_order_and_spelling_of_the_hosts_do_not_matter(make: Callable[..., Cache]) -> None:
    """They are replicas of one service: to put another one first must not lose the last known values."""
    make(host="https://a.test/, https://b.test").store("orders", None, None, value())
    assert make(host="https://b.test,https://a.test").load("orders", None, None) == value()


def test_what_is_erased_is_gone(make: Callable[..., Cache], directory: Path) -> None:
    """After a 401, 403 or 404; other entries stay, and erasing twice is no fault."""
    cache = make()
    cache.store("orders", None, None, value())
    cache.store("billing", None, None, value())
    cache.erase("orders", None, None)
    cache.erase("orders", None, None)
    assert cache.load("orders", None, None) is None
    assert cache.load("billing", None, None) == value()
    assert len(entries(directory)) == 1


def test_nothing_is_made_before_something_is_stored(
    make: Callable[..., Cache], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Looking into a cache that is not there is no fault and leaves no directory."""
    cache = make()
    assert cache.load("orders", None, None) is None
    cache.erase("orders", None, None)
    assert not directory.exists()
    assert caplog.records == []


# --- secrecy


def test_no_readable_byte_reaches_the_disk(
    make: Callable[..., Cache], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is written, to temporary files too, is sealed; not even the name of the config is in a file's name."""
    written: list[bytes] = []
    names: list[str] = []
    write, open_file = os.write, os.open

    def watching_write(descriptor: int, data: Any) -> int:
        written.append(bytes(data))
        return write(descriptor, data)

    def watching_open(path: Any, *arguments: Any, **options: Any) -> int:
        names.append(str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "write", watching_write)
    monkeypatch.setattr(os, "open", watching_open)
    cache = make(NEW_KEY)
    for revision in range(1, 6):
        cache.store("orders-of-acme", "prod", "main", value(revision, document=DOCUMENT * 100))
    cache.load("orders-of-acme", "prod", "main")
    assert len(written) >= 5
    on_disk = b"".join([*written, *(path.read_bytes() for path in entries(directory))])
    for secret in (b"s3cr3t", b"password", DOCUMENT, NEW_KEY, NEW_KEY[:8], NEW_KEY.hex().encode()):
        assert secret not in on_disk
    assert not [name for name in names if "acme" in name or "prod" in name]


def test_an_entry_is_sealed_under_a_key_of_its_own(make: Callable[..., Cache], directory: Path) -> None:
    """Nothing from the wire passes for an entry, and no entry for something from the wire: the keys differ."""
    make().store("orders", None, None, value(3))
    sealed = only(directory).read_bytes()
    header = parse_header(sealed)
    assert header.binding == Binding(EPOCH, "orders", "default", "main", 3, 3)
    assert header.key_id in Keyring((KEY,)).derived(b"config-client cache v1").ids
    assert header.key_id not in Keyring((KEY,)).ids
    only(directory).write_bytes(Keyring((KEY,)).seal_bound(DOCUMENT, header.binding))
    assert make().load("orders", None, None) is None


@POSIX
def test_directory_and_files_are_for_this_user_alone(make: Callable[..., Cache], directory: Path) -> None:
    """Whatever the umask says."""
    before = os.umask(0)
    try:
        make().store("orders", None, None, value())
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(only(directory).stat().st_mode) == 0o600


def test_no_repr_shows_a_document() -> None:
    """A value may be logged."""
    assert "s3cr3t" not in f"{value()!r} {value()}"
    assert "version=1" in repr(value())


# --- rotation of keys


def test_an_entry_under_an_older_key_of_the_ring_is_found(make: Callable[..., Cache]) -> None:
    """A rotation does not lose the last known value."""
    make(KEY).store("orders", None, None, value(4))
    assert make(NEW_KEY, KEY).load("orders", None, None) == value(4)
    assert make(NEW_KEY).load("orders", None, None) is None


@pytest.mark.parametrize(("under_old", "under_new"), [(5, 4), (4, 5)])
def test_of_entries_under_two_keys_the_newer_one_counts(
    make: Callable[..., Cache], under_old: int, under_new: int
) -> None:
    """During a rotation one process may hold the new key already and another only the old one."""
    make(KEY).store("orders", None, None, value(under_old))
    make(NEW_KEY).store("orders", None, None, value(under_new))
    loaded = make(NEW_KEY, KEY).load("orders", None, None)
    assert loaded is not None
    assert loaded.version == 5


def test_of_entries_without_a_position_the_later_one_counts(make: Callable[..., Cache], clock: Clock) -> None:
    """A foreign service tells none: then the time decides."""
    clock.now += 60
    make(KEY).store("orders", None, None, value(position=None, fetched_at=NOW + timedelta(seconds=30)))
    make(NEW_KEY).store("orders", None, None, value(position=None))
    loaded = make(NEW_KEY, KEY).load("orders", None, None)
    assert loaded is not None
    assert loaded.fetched_at == NOW + timedelta(seconds=30)


def test_erasing_removes_the_entries_under_every_key(make: Callable[..., Cache], directory: Path) -> None:
    """Otherwise the older one would come back."""
    make(KEY).store("orders", None, None, value())
    make(NEW_KEY, KEY).store("orders", None, None, value(2))
    assert len(entries(directory)) == 2
    make(NEW_KEY, KEY).erase("orders", None, None)
    assert entries(directory) == []


def test_keys_that_the_ring_takes_on_count_at_once(directory: Path, clock: Clock) -> None:
    """The cache follows its keyring, with no new one of its own."""
    ring = Keyring((KEY,), reload=lambda: (NEW_KEY, KEY))
    cache = Cache(directory, host=HOST, keyring=ring, max_age=3600.0, clock=clock)
    cache.store("orders", None, None, value())
    ring.open_bound(Keyring((NEW_KEY,)).seal_bound(b"{}", Binding(EPOCH, "orders", "default", "main", 2, 2)))
    cache.store("orders", None, None, value(2))
    assert len(entries(directory)) == 2
    assert cache.load("orders", None, None) == value(2)


def test_no_file_makes_the_ring_ask_for_keys(directory: Path, clock: Clock) -> None:
    """An entry under a key that nobody holds is ignored; only the service's payloads ask for new keys."""
    asked: list[None] = []

    def reload() -> tuple[bytes, ...]:
        asked.append(None)
        return (KEY,)

    cache = Cache(directory, host=HOST, keyring=Keyring((KEY,), reload=reload), max_age=3600.0, clock=clock)
    cache.store("orders", None, None, value())
    foreign = Keyring((OTHER_KEY,)).seal_bound(DOCUMENT, Binding(EPOCH, "orders", "default", "main", 1, 1))
    only(directory).write_bytes(foreign)
    assert cache.load("orders", None, None) is None
    assert asked == []


# --- entries that do not count


def test_an_entry_altered_in_any_byte_is_ignored_and_removed(make: Callable[..., Cache], directory: Path) -> None:
    """Every byte is under the seal."""
    cache = make()
    cache.store("orders", None, None, value())
    path = only(directory)
    good = path.read_bytes()
    for index in range(len(good)):
        path.write_bytes(good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :])
        assert cache.load("orders", None, None) is None, index
        assert entries(directory) == []
    path.write_bytes(good)
    assert cache.load("orders", None, None) == value()


def test_an_entry_cut_anywhere_is_ignored_and_removed(make: Callable[..., Cache], directory: Path) -> None:
    """As a power failure may leave it where the file system reorders writes."""
    cache = make()
    cache.store("orders", None, None, value())
    path = only(directory)
    good = path.read_bytes()
    for size in range(len(good)):
        path.write_bytes(good[:size])
        assert cache.load("orders", None, None) is None, size
        assert entries(directory) == []


@pytest.mark.parametrize("sealed", [b"", bytes([1]), bytes([2]) + bytes(48), bytes(48)], ids=["none", "1", "2", "0"])
def test_a_sealed_text_of_another_layout_is_ignored(make: Callable[..., Cache], directory: Path, sealed: bytes) -> None:
    """Something authentic that a later release might have written is left to it."""
    cache = make()
    cache.store("orders", None, None, value())
    ring = Keyring((KEY,)).derived(b"config-client cache v1")
    only(directory).write_bytes(ring.seal_bound(sealed, Binding(EPOCH, "orders", "default", "main", 1, 1)))
    assert cache.load("orders", None, None) is None


def test_an_entry_moved_to_the_place_of_another_is_ignored(make: Callable[..., Cache], directory: Path) -> None:
    """It answers another question, of another config or of the same one in another environment."""
    make().store("orders", None, None, value())
    place = only(directory)
    place.unlink()
    for other in (("billing", None, None), ("orders", "prod", None), ("orders", None, "main")):
        make().store(*other, value())
        only(directory).rename(place)
        assert make().load("orders", None, None) is None
        assert entries(directory) == []
    make(host="https://other.test").store("orders", None, None, value())
    only(directory).rename(place)
    assert make().load("orders", None, None) is None


@pytest.mark.parametrize(
    ("seconds", "counts"),
    [(0, True), (3600, True), (3600.01, False), (-MAX_CLOCK_SKEW, True), (-MAX_CLOCK_SKEW - 0.01, False)],
)
def test_an_entry_counts_until_its_maximum_age(
    make: Callable[..., Cache], directory: Path, clock: Clock, seconds: float, *, counts: bool
) -> None:
    """Older ones are removed. Those from a time that has not come wait for it: this clock may be the wrong one."""
    cache = make(max_age=3600.0)
    cache.store("orders", None, None, value())
    clock.now += seconds
    assert (cache.load("orders", None, None) is not None) is counts
    assert len(entries(directory)) == (counts or seconds < 0)
    clock.now -= min(seconds, 0)
    assert (cache.load("orders", None, None) is not None) is (counts or seconds < 0)


def test_a_time_without_an_offset_is_in_utc(make: Callable[..., Cache]) -> None:
    """As everywhere in this package, and one before 1970 is merely too old."""
    make().store("orders", None, None, value(fetched_at=NOW.replace(tzinfo=None)))
    assert make().load("orders", None, None) == value()
    make().store("orders", None, None, value(fetched_at=datetime(1960, 1, 1, tzinfo=timezone.utc)))
    assert make().load("orders", None, None) is None


@POSIX
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("kind", ["link", "pipe", "socket"])
def test_what_is_no_file_is_never_followed(
    make: Callable[..., Cache], directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A link, a pipe or a socket in the place of an entry is neither read nor written through, and does not block."""
    cache = make()
    cache.store("orders", None, None, value())
    place = only(directory)
    outside = tmp_path / "outside"
    outside.write_bytes(place.read_bytes())
    monkeypatch.chdir(directory)  # the path of a socket must be short

    def put() -> None:
        place.unlink(missing_ok=True)
        if kind == "link":
            place.symlink_to(outside)
        elif kind == "pipe":
            os.mkfifo(place)
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(place.name)

    put()
    assert cache.load("orders", None, None) is None
    assert not os.path.lexists(place)
    put()
    cache.store("orders", None, None, value(2))
    assert stat.S_ISREG(place.lstat().st_mode)
    assert cache.load("orders", None, None) == value(2)
    assert parse_header(outside.read_bytes()).binding.version == 1


def test_a_directory_in_the_place_of_an_entry_is_said_once(
    make: Callable[..., Cache], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be replaced by a file; the program goes on."""
    cache = make()
    cache.store("orders", None, None, value())
    place = only(directory)
    place.unlink()
    place.mkdir()
    assert cache.load("orders", None, None) is None
    cache.store("orders", None, None, value())
    cache.store("orders", None, None, value())
    assert len(caplog.records) == 1
    assert entries(directory) == [place]


# --- never backwards


@pytest.mark.parametrize(
    ("there", "stored", "kept"),
    [
        (value(5), value(4), 5),
        (value(5), value(6), 6),
        (value(5, epoch=LATER_EPOCH), value(9), 5),
        (value(9), value(5, epoch=LATER_EPOCH), 5),
        (value(5), value(4, position=None), 4),
        (value(5, position=None), value(4), 4),
    ],
    ids=["older", "newer", "earlier epoch", "later epoch", "no position", "position after none"],
)
def test_an_older_value_does_not_replace_a_newer_one(
    make: Callable[..., Cache], directory: Path, there: CachedValue, stored: CachedValue, kept: int
) -> None:
    """Another process may be ahead; without positions, whoever comes last counts."""
    make().store("orders", None, None, there)
    make().store("orders", None, None, stored)
    loaded = make().load("orders", None, None)
    assert loaded is not None
    assert loaded.version == kept
    assert len(entries(directory)) == 1


def test_an_entry_must_prove_that_it_is_newer(make: Callable[..., Cache], directory: Path) -> None:
    """Whoever can write into the directory cannot freeze the cache with a header that says so."""
    make().store("orders", None, None, value(9))
    path = only(directory)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    make().store("orders", None, None, value(5))
    assert make().load("orders", None, None) == value(5)


def test_a_newer_entry_that_is_too_old_to_count_is_replaced(make: Callable[..., Cache], clock: Clock) -> None:
    """It would never be loaded, and must not stand in the way for ever."""
    make().store("orders", None, None, value(9))
    clock.now += 4000
    late = value(5, fetched_at=NOW + timedelta(seconds=4000))
    make().store("orders", None, None, late)
    assert make().load("orders", None, None) == late


# --- disks that fail


def assert_said_once(caplog: pytest.LogCaptureFixture, fragment: str) -> None:
    """Exactly one warning, of the package, with the reason and nothing secret."""
    (record,) = caplog.records
    assert (record.name, record.levelno, record.exc_info) == ("config_client", logging.WARNING, None)
    assert fragment in record.getMessage()
    assert "give another cache_directory, or switch cache off" in record.getMessage()
    assert "s3cr3t" not in str(vars(record))


def use(cache: Cache) -> None:
    """Make every call, twice."""
    for _ in range(2):
        cache.store("orders", None, None, value())
        assert cache.load("orders", None, None) is None
        cache.erase("orders", None, None)


def test_a_file_in_the_place_of_the_directory_is_said_once(
    make: Callable[..., Cache], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each cache warns once, by the path and the type of the fault, and goes on."""
    (tmp_path / "file").write_text("x")
    use(make(where=tmp_path / "file" / "cache"))
    assert_said_once(caplog, f"{tmp_path / 'file' / 'cache'}: NotADirectoryError (ENOTDIR)")
    caplog.clear()
    use(make(where=str(tmp_path / "file")))
    assert len(caplog.records) == 1
    caplog.clear()
    use(make(where=f"{tmp_path}/nul\0"))
    assert_said_once(caplog, "ValueError")


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_disk_that_refuses_is_said_once_and_may_recover(
    make: Callable[..., Cache],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    code: str,
) -> None:
    """Full, read-only or broken, at whichever step: the old value and nothing else is left; later it works again."""
    cache = make()
    cache.store("orders", None, None, value(1))
    original = getattr(os, call)

    def fail(*arguments: Any, **options: Any) -> Any:
        if call != "open" or arguments[1] & os.O_CREAT:
            raise OSError(getattr(errno, code), f"{code} about s3cr3t")
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        cache.store("orders", None, None, value(2))
        cache.store("orders", None, None, value(3))
    assert_said_once(caplog, f"({code})")
    assert cache.load("orders", None, None) == value(1)
    assert len(entries(directory)) == 1
    cache.store("orders", None, None, value(4))
    assert cache.load("orders", None, None) == value(4)
    assert len(caplog.records) == 1


def test_a_disk_that_writes_half_is_written_to_again(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short write is no error: the rest follows."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:7]))
    make().store("orders", None, None, value())
    assert make().load("orders", None, None) == value()


def test_a_value_too_large_to_read_back_is_not_written(
    make: Callable[..., Cache], directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And a file of such a size is not read."""
    make().store("orders", None, None, value())
    monkeypatch.setattr(_cache_files, "MAX_FILE_BYTES", 100)
    make().store("orders", None, None, value(2))
    assert_said_once(caplog, "EFBIG")
    assert parse_header(only(directory).read_bytes()).binding.version == 1
    assert make().load("orders", None, None) is None


def test_what_cannot_be_sealed_is_said_once(make: Callable[..., Cache], caplog: pytest.LogCaptureFixture) -> None:
    """A foreign service may state anything as a label."""
    make().store("orders", None, None, value(label="x" * 5000))
    assert_said_once(caplog, "ConfigClientError")


@POSIX
@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    ("mode", "owner", "reason"),
    [(0o777, 0, "everybody may write"), (0o1777, 0, "everybody may write"), (0o700, 1, "belongs to another user")],
)
def test_a_directory_that_others_can_change_is_not_used(
    make: Callable[..., Cache],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    owner: int,
    reason: str,
) -> None:
    """They could put an older entry back, or remove one. The remedy is a directory inside it."""
    make().store("orders", None, None, value())
    before = [path.read_bytes() for path in entries(directory)]
    directory.chmod(mode)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + owner)
    use(make())
    assert_said_once(caplog, reason)
    assert "name a directory inside it" in caplog.text
    assert [path.read_bytes() for path in entries(directory)] == before
    if not owner:
        caplog.clear()
        inside = make(where=directory / "inside")
        inside.store("orders", None, None, value())
        assert inside.load("orders", None, None) == value()
        assert caplog.records == []


@POSIX
def test_a_link_to_a_directory_of_this_user_is_used(make: Callable[..., Cache], tmp_path: Path) -> None:
    """A user may keep the cache on another disk: what the link leads to is what is checked."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    make(where=tmp_path / "link").store("orders", None, None, value())
    assert make(where=tmp_path / "link").load("orders", None, None) == value()
    assert len(entries(tmp_path / "elsewhere")) == 1


# --- the default directory


def test_without_a_directory_the_cache_is_the_users_own(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``config-client`` below the cache directory that the platform gives a user."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, **_: str(tmp_path / "user" / name))
    make(where=None).store("orders", None, None, value())
    assert make(where=None).load("orders", None, None) == value()
    assert len(entries(tmp_path / "user" / "config-client")) == 1


@POSIX
def test_a_user_without_a_home_has_no_cache(
    make: Callable[..., Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is made below the directory in which the program happens to run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name, **_: f"~/.cache/{name}")
    use(make(where=None))
    assert_said_once(caplog, "no home directory")
    assert entries(tmp_path) == []


@pytest.mark.integration
def test_platformdirs_is_loaded_by_those_who_need_it() -> None:
    """Importing the package, and the cache with a directory given, costs nothing of it."""
    code = """
        import sys
        import config_client, config_client.cache
        assert "platformdirs" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=PATIENCE)


# --- sharing


def test_leftovers_of_dead_writers_are_swept(make: Callable[..., Cache], directory: Path) -> None:
    """Old temporary files and entries past every age go with the first store; whatever else is there stays."""
    make().store("orders", None, None, value())
    entry = only(directory)
    now = time.time()
    files = {
        f".{'a' * 64}.{'b' * 16}.tmp": (now - 400, False),
        f".{'a' * 64}.{'c' * 16}.tmp": (now - 5, True),
        "d" * 64: (now - 370 * 86_400, False),
        "e" * 64: (now - 300 * 86_400, True),
        "notes.tmp": (0.0, True),
        f".{'a' * 64}.tmp": (0.0, True),
    }
    for name, (modified, _) in files.items():
        (directory / name).write_bytes(b"x")
        os.utime(directory / name, (modified, modified))
    cache = make()
    cache.store("billing", None, None, value())
    kept = {path.name for path in entries(directory)}
    assert {name for name in files if name in kept} == {name for name, (_, stays) in files.items() if stays}
    assert entry.name in kept


def test_a_writer_waits_until_the_one_before_it_is_done(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what is there and the move nobody else writes: the older value would end on top."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(_cache_files, "MAX_TURN_SECONDS", PATIENCE)
    go_on = threading.Event()
    flock, replace = fcntl.flock, os.replace
    later = threading.Thread(target=lambda: (make().store("orders", None, None, value(2)), go_on.set()), daemon=True)

    def telling_flock(handle: int, operation: int) -> None:
        try:
            flock(handle, operation)
        except BlockingIOError:
            go_on.set()
            raise

    def late_replace(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(os, "replace", replace)
        later.start()
        assert go_on.wait(PATIENCE)
        replace(*arguments, **options)

    monkeypatch.setattr(fcntl, "flock", telling_flock)
    monkeypatch.setattr(os, "replace", late_replace)
    make().store("orders", None, None, value(1))
    later.join(PATIENCE)
    assert make().load("orders", None, None) == value(2)


def test_a_lock_that_is_never_let_go_holds_nobody_up(
    make: Callable[..., Cache], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped while it held the lock, or a disk that hangs, costs a moment and no value."""
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(_cache_files, "MAX_TURN_SECONDS", 0.01)
    make().store("orders", None, None, value(1))
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        make().store("orders", None, None, value(2))
    finally:
        os.close(handle)
    assert make().load("orders", None, None) == value(2)


def test_a_file_system_without_locks_is_no_fault(
    make: Callable[..., Cache], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some network file systems have none."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    make().store("orders", None, None, value())
    assert make().load("orders", None, None) == value()
    assert caplog.records == []


def test_an_entry_replaced_while_it_is_found_wanting_is_not_removed(
    make: Callable[..., Cache], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading a bad entry and removing it, another process may have put a good one there."""
    cache = make()
    cache.store("orders", None, None, value(1))
    only(directory).write_bytes(b"bad")
    discard = _cache_files.Folder.discard

    def late(folder: _cache_files.Folder, name: str, found: _cache_files.Found) -> None:
        make().store("orders", None, None, value(2))
        discard(folder, name, found)

    with monkeypatch.context() as patch:
        patch.setattr(_cache_files.Folder, "discard", late)
        assert cache.load("orders", None, None) is None
    assert cache.load("orders", None, None) == value(2)


def test_threads_may_share_a_cache(make: Callable[..., Cache], directory: Path) -> None:
    """Four threads store, erase and load at once: a reader sees whole values only, and the newest one stays."""
    cache = make()
    faults: list[object] = []
    start = threading.Barrier(4)

    def run(offset: int) -> None:
        start.wait(PATIENCE)
        try:
            for revision in range(1 + offset, 200, 4):
                cache.store("orders", None, None, value(revision, document=b"%d" % revision * 500))
                loaded = cache.load("orders", None, None)
                is_whole = loaded is not None and loaded.document == b"%d" % (loaded.version or 0) * 500
                if loaded is None or not is_whole or (loaded.version or 0) < revision:
                    faults.append(loaded)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=(offset,), daemon=True) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert faults == []
    loaded = cache.load("orders", None, None)
    assert loaded is not None
    assert loaded.version == 199
    assert len(entries(directory)) == 1


CHILD = """
    import os, sys
    from datetime import datetime, timezone
    from config_client import _cache_files
    from config_client.cache import Cache, CachedValue
    from config_client.crypto import Keyring
    from config_client.protocol import Position

    directory = sys.argv[1]
    cache = Cache(directory, host="https://config.test", keyring=Keyring((bytes(32),)), max_age=3600.0)

    def store(revision):
        document = b"%d" % revision * 500
        position = Position("0192f3a4b5c6d7e8f9a0b1c2", revision)
        now = datetime.now(timezone.utc)
        cache.store("orders", None, None, CachedValue(document, "default", "main", revision, position, now))
"""


@pytest.fixture
def child(directory: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start programs that store into the directory; none outlives its test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        program = textwrap.dedent(CHILD) + textwrap.dedent(code)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.mark.integration
def test_processes_may_share_a_directory(child: Callable[[str], subprocess.Popen[str]], directory: Path) -> None:
    """Three processes store in turns of their own: a reader sees whole values that never go backwards."""
    processes = [
        child(f"print('ready', flush=True)\ninput()\nfor revision in range(1 + {offset}, 400, 3): store(revision)")
        for offset in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    cache = Cache(directory, host=HOST, keyring=Keyring((KEY,)), max_age=3600.0)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while seen[-1:] != [399] and time.monotonic() < deadline:
        loaded = cache.load("orders", None, None)
        if loaded is not None:
            assert loaded.version is not None
            assert loaded.document == b"%d" % loaded.version * 500
            seen.append(loaded.version)
    for process in processes:
        assert process.wait(PATIENCE) == 0
    loaded = cache.load("orders", None, None)
    assert loaded is not None
    assert loaded.version == 399
    assert seen == sorted(seen)
    assert len(entries(directory)) == 1


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL (POSIX)")
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_at_any_step_leaves_the_old_value(
    child: Callable[[str], subprocess.Popen[str]], directory: Path, step: str
) -> None:
    """A writer killed before, in or after writing its temporary file: the old value loads, and the rest is swept."""
    process = child(
        f"""
        store(1)
        original = os.{step}
        def stop(*arguments, **options):
            if {step!r} == "write":
                original(arguments[0], bytes(arguments[1])[:20])
            print("inside", flush=True)
            input()
        os.{step} = stop
        store(2)
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    cache = Cache(directory, host=HOST, keyring=Keyring((KEY,)), max_age=3600.0)
    loaded = cache.load("orders", None, None)
    assert loaded is not None
    assert loaded.version == 1
    (leftover,) = [path for path in entries(directory) if path.name.endswith(".tmp")]
    assert b"2" * 20 not in leftover.read_bytes()
    os.utime(leftover, (0, 0))
    cache.store("orders", None, None, value(2))
    assert not leftover.exists()
