"""The last known good value of every config, on disk, for a start while the service cannot be reached.

Knows sealed entries, their age and their order. Knows nothing of HTTP, of types, or of who asks. Nothing here raises
for what a disk can do: a cache that does not work is said once, in the log, and the program goes on without.

An entry is a payload of sealed format 2 under a key that is derived from the token's (``derived(PURPOSE)``), so it
never was on the wire and nothing from the wire can be put in its place. It is bound to epoch, name, environment, label,
version and revision as served (empty and 0 where the service told none). To the byte, its plaintext is

    0x01 ‖ fetched at (8, big-endian, ms since 1970) ‖ identity (32) ‖ document

``identity`` is SHA-256 over the hosts and the config as it was asked for, so that an entry opens only in the place of
the one question that it answers. The name of its file is the same digest with the key's id in front: what is asked for
shows no more than that something is kept.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

from ._cache_files import Folder, Found, UnsafeDirectoryError, open_folder
from .crypto import Binding, Keyring, parse_header
from .errors import ConfigClientError, DecryptionError
from .protocol import Position

PURPOSE: Final = b"config-client cache v1"
"""What the keys of entries are derived for."""
MAX_CLOCK_SKEW: Final = 300.0
"""Seconds that an entry may lie in the future; one that lies further was written under a clock that was wrong."""

_LAYOUT: Final = b"\x01"
_TIME_SIZE: Final = 8
_IDENTITY_SIZE: Final = 32
_PREFIX_SIZE: Final = len(_LAYOUT) + _TIME_SIZE + _IDENTITY_SIZE

R = TypeVar("R")

_log = logging.getLogger(__package__)


class CachedValue(NamedTuple):
    """A document, what the service said it is, and when (aware, UTC) it was last known to be current.

    ``version`` and ``position`` are None, and the texts empty, when the service told none. Its repr shows the document
    no more than any other repr of this package does.
    """

    document: bytes
    environment: str
    label: str
    version: int | None
    position: Position | None
    fetched_at: datetime

    def __repr__(self) -> str:
        return (
            f"CachedValue(environment={self.environment!r}, label={self.label!r}, version={self.version}, "
            f"position={self.position}, fetched_at={self.fetched_at.isoformat()})"
        )


class Cache:
    """Sealed documents in a directory that any number of threads and processes may share.

    ``directory``: made, for this user alone, when it is missing; None: ``config-client`` in the user's cache
    directory. ``host``: the URLs of the service, as Options spell them. ``max_age``: seconds after which an entry no
    longer counts. ``clock``: seconds since 1970. Nothing is touched before the first call. Holds no lock, thread or
    open file between two calls, so a forked child may go on with it.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None,
        *,
        host: str,
        keyring: Keyring,
        max_age: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = None if directory is None else os.fspath(directory)
        # As a set: which of them is tried first says nothing of what they hold.
        self._hosts = tuple(sorted({part.strip().rstrip("/") for part in host.split(",")}))
        self._keyring = keyring.derived(PURPOSE)
        self._max_age = max_age
        self._clock = clock
        # Emptied by the one who warns, and by the one who sweeps: ``pop`` is atomic and needs no lock.
        self._unsaid = [True]
        self._unswept = [True]

    def store(self, name: str, environment: str | None, label: str | None, value: CachedValue) -> None:
        """Keep ``value`` as the answer to what was asked: environment and label as requested, None for not named.

        An entry at a later position stays: another process is ahead. The call takes one sync of the disk.
        """
        place = _Place(self._hosts, name, environment, label)
        binding = Binding(
            epoch=value.position.epoch if value.position else "",
            name=name,
            environment=value.environment,
            label=value.label,
            version=value.version or 0,
            revision=value.position.revision if value.position else 0,
        )
        plaintext = b"".join((_LAYOUT, _dump_time(value.fetched_at), place.identity, value.document))

        def write(folder: Folder) -> None:
            if _take(self._unswept):
                with suppress(OSError):
                    folder.sweep()
            sealed = self._keyring.seal_bound(plaintext, binding)
            key_id = parse_header(sealed).key_id

            def is_ahead(found: Found) -> bool:
                # The header is cheap to read, and decides nearly always; only what would stay must prove itself.
                position = _stated_position(found.data)
                if value.position is None or position is None or position <= value.position:
                    return False
                return self._open(found.data, key_id, place) is not None

            folder.replace(place.file(key_id), sealed, keep=is_ahead)

        self._attempt(write, create=True)

    def load(self, name: str, environment: str | None, label: str | None) -> CachedValue | None:
        """Return the newest entry under any key that is held, or None.

        One that is too old, altered or out of place is removed where that is possible; one from the future is passed
        over, since the clock may be the one that is wrong: many machines start in 1970.
        """
        place = _Place(self._hosts, name, environment, label)

        def read(folder: Folder) -> CachedValue | None:
            newest: CachedValue | None = None
            for key_id in self._keyring.ids:
                found = folder.read(place.file(key_id))
                if found is None:
                    continue
                value = self._open(found.data, key_id, place, may_be_early=True)
                if value is None:
                    with suppress(OSError):
                        folder.discard(place.file(key_id), found)
                elif value.fetched_at.timestamp() > self._clock() + MAX_CLOCK_SKEW:
                    continue
                elif newest is None or _is_newer(value, newest):
                    newest = value
            return newest

        return self._attempt(read)

    def erase(self, name: str, environment: str | None, label: str | None) -> None:
        """Remove every entry that ``load`` could return for this."""
        place = _Place(self._hosts, name, environment, label)

        def remove(folder: Folder) -> None:
            for key_id in self._keyring.ids:
                folder.remove(place.file(key_id))

        self._attempt(remove)

    def _open(self, data: bytes, key_id: str, place: _Place, *, may_be_early: bool = False) -> CachedValue | None:
        """Return what an entry holds, or None unless it is authentic, in its place, and neither too old nor early."""
        try:
            # A key that the ring lacks would make it ask for new ones, and no file may cause that.
            if parse_header(data).key_id != key_id:
                return None
            binding, plaintext = self._keyring.open_bound(data)
        except DecryptionError:
            return None
        layout, rest = plaintext[: len(_LAYOUT)], plaintext[len(_LAYOUT) : _PREFIX_SIZE]
        fetched_at = int.from_bytes(rest[:_TIME_SIZE], "big") / 1000
        if layout != _LAYOUT or rest[_TIME_SIZE:] != place.identity or binding.name != place.name:
            return None
        age = self._clock() - fetched_at
        if age > self._max_age or (age < -MAX_CLOCK_SKEW and not may_be_early):
            return None
        return CachedValue(
            document=plaintext[_PREFIX_SIZE:],
            environment=binding.environment,
            label=binding.label,
            version=binding.version or None,
            position=_position(binding),
            fetched_at=datetime.fromtimestamp(fetched_at, timezone.utc),
        )

    def _attempt(self, work: Callable[[Folder], R], *, create: bool = False) -> R | None:
        """Return what ``work`` does in the directory; None when there is none, or when it fails, which is said once."""
        try:
            self._directory = self._directory or _default_directory()
            with open_folder(self._directory, create=create) as folder:
                return work(folder)
        except (OSError, ValueError, ConfigClientError) as error:
            is_missing = isinstance(error, FileNotFoundError) and not create
            if not is_missing and _take(self._unsaid):
                _log.warning(
                    "last known values cannot be kept in %s: %s; give another cache_directory, or switch cache off "
                    "(this is said once)",
                    self._directory or "the user's cache directory",
                    _reason(error),
                )
        return None


class _Place:
    """Where the answer to one question is kept."""

    __slots__ = ("_fields", "identity", "name")

    def __init__(self, hosts: tuple[str, ...], name: str, environment: str | None, label: str | None) -> None:
        self.name = name
        self._fields = (*hosts, name, environment or "", label or "")
        self.identity = sha256(_joined(self._fields)).digest()

    def file(self, key_id: str) -> str:
        """Return the name of the file of the entry under this key."""
        return sha256(_joined((key_id, *self._fields))).hexdigest()


def _joined(fields: tuple[str, ...]) -> bytes:
    """Return the texts so that no two lists make the same bytes: their number, then each behind its length."""
    parts = [len(fields).to_bytes(4, "big")]
    for field in fields:
        data = field.encode()
        parts += (len(data).to_bytes(4, "big"), data)
    return b"".join(parts)


def _dump_time(moment: datetime) -> bytes:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return max(0, round(aware.timestamp() * 1000)).to_bytes(_TIME_SIZE, "big")


def _stated_position(data: bytes) -> Position | None:
    """Return the position that the header of an entry states, which nothing has proved."""
    try:
        return _position(parse_header(data).binding)
    except DecryptionError:
        return None


def _position(binding: Binding) -> Position | None:
    return Position(binding.epoch, binding.revision) if binding.epoch else None


def _is_newer(value: CachedValue, other: CachedValue) -> bool:
    if value.position is not None and other.position is not None:
        return value.position > other.position
    return value.fetched_at > other.fetched_at


def _default_directory() -> str:
    # Imported by those who keep something, and give no directory.
    from platformdirs import user_cache_dir  # noqa: PLC0415

    path = user_cache_dir("config-client", appauthor=False)
    # Without a home directory a tilde stays, and would become a directory below wherever the program was started.
    if not os.path.isabs(path):
        raise UnsafeDirectoryError("this user has no home directory")
    return path


def _take(once: list[bool]) -> bool:
    try:
        return once.pop()
    except IndexError:
        return False


def _reason(error: Exception) -> str:
    """Return what failed by its type, and of the system's errors by their code: some have no type of their own."""
    if isinstance(error, UnsafeDirectoryError):
        return str(error)
    number = error.errno if isinstance(error, OSError) else None
    return f"{type(error).__name__} ({errno.errorcode.get(number, number)})" if number else type(error).__name__
