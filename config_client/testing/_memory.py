"""What the in-memory service holds: every version of every config, the tokens, and the order of all changes.

Knows revisions and epochs. Knows nothing of HTTP, sockets or threads: its caller holds the lock.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Final, NamedTuple

from ..protocol import Position
from ..types import ConfigInfo
from ._accounts import Account
from ._faults import MisuseError

REPLAYED: Final = 10_000
"""Changes that are kept for the replay of a base stream."""
_OPERATOR: Final = 1
"""The id of the token that made the others, as at a real service; nobody has its secret."""


class ConfigKey(NamedTuple):
    """What identifies a config."""

    name: str
    environment: str
    label: str

    def __str__(self) -> str:
        return f"{self.name} ({self.environment}, {self.label})"


@dataclass(frozen=True, slots=True, repr=False)
class Version:
    """A published version; ``content`` None is a tombstone. Without its repr: the content is a document."""

    key: ConfigKey
    number: int
    position: Position
    changed_by: int
    timestamp: datetime
    content: bytes | None

    @property
    def deleted(self) -> bool:
        """Whether this version is a tombstone."""
        return self.content is None


@dataclass(frozen=True, slots=True, repr=False)
class Backup:
    """Everything that the service held at one moment."""

    revision: int
    versions: Mapping[ConfigKey, tuple[Version, ...]]
    accounts: Mapping[int, Account]


class Memory:
    """The store of the in-memory service."""

    def __init__(self) -> None:
        self.epoch = _new_epoch("")
        self.revision = _OPERATOR
        self._versions: dict[ConfigKey, tuple[Version, ...]] = {}
        self._accounts: dict[int, Account] = {}
        self._changes: deque[Version] = deque(maxlen=REPLAYED)
        self._floor = self.revision

    @property
    def position(self) -> Position:
        """The epoch, and the newest revision."""
        return Position(self.epoch, self.revision)

    # Configs

    def newest(self, key: ConfigKey) -> Version | None:
        """Return the newest version of ``key``, a tombstone included, or None when nothing was ever published."""
        versions = self._versions.get(key)
        return versions[-1] if versions else None

    def version(self, key: ConfigKey, number: int | None = None) -> Version | None:
        """Return version ``number`` of ``key``, or the running one; None when there is none with content."""
        versions = self._versions.get(key, ())
        if number is None:
            found = versions[-1] if versions else None
        else:
            found = versions[number - 1] if 1 <= number <= len(versions) else None
        return None if found is None or found.deleted else found

    def named(self, name: str) -> list[Version]:
        """Return the newest version of every config of that name."""
        return [versions[-1] for key, versions in self._versions.items() if key.name == name]

    def publish(self, key: ConfigKey, content: bytes, changed_by: int) -> tuple[Version, bool]:
        """Make ``content`` the next version, and tell whether it is a new one: identical bytes make none."""
        running = self.version(key)
        if running is not None and running.content == content:
            return running, False
        return self._append(key, content, changed_by), True

    def roll_back(self, key: ConfigKey, number: int, changed_by: int) -> tuple[Version, bool]:
        """Publish version ``number`` again. Raises MisuseError when there is none with content."""
        source = self.version(key, number)
        if source is None or source.content is None:
            known = [each.number for each in self._versions.get(key, ()) if not each.deleted]
            raise MisuseError(f"{key}: there is no version {number} to roll back to; there are {known or 'none'}")
        return self.publish(key, source.content, changed_by)

    def delete(self, key: ConfigKey, changed_by: int) -> Version:
        """Let a tombstone take the next version. Raises MisuseError when nothing is running."""
        if self.version(key) is None:
            raise MisuseError(f"{key}: nothing is running that could be deleted; publish it first")
        return self._append(key, None, changed_by)

    def since(self, revision: int, name: str) -> list[Version] | None:
        """Return every change of configs of that name after ``revision``; None when they are not all known."""
        if not self._floor <= revision <= self.revision:
            return None
        return [each for each in self._changes if each.position.revision > revision and each.key.name == name]

    def infos(self, account: Account) -> list[ConfigInfo]:
        """Return one row per config name that ``account`` may read, deleted ones included, by name."""
        rows = []
        for name in sorted({key.name for key in self._versions}):
            readable = [one for one in self.named(name) if account.may("read", name, one.key.environment)]
            if readable:
                rows.append(_describe(name, readable, account.environment))
        return rows

    # Tokens

    def mint(self, environment: str, scopes: Collection[str]) -> Account:
        """Return a new token."""
        account = Account.new(max(self._accounts, default=_OPERATOR) + 1, environment, scopes)
        return self.put(account)

    def put(self, account: Account) -> Account:
        """Replace the token of that id; this takes a revision, as every change does."""
        self.revision += 1
        self._accounts[account.id] = account
        return account

    def account(self, number: int) -> Account:
        """Return the token of that id, revoked ones included."""
        return self._accounts[number]

    def revoke(self, account: Account) -> None:
        """Refuse the token from now on."""
        self.put(replace(account, revoked=True))

    def authenticate(self, secret: str | None) -> Account | None:
        """Return the token that ``secret`` proves, or None."""
        for account in self._accounts.values():
            if (
                not account.revoked
                and secret is not None
                and secrets.compare_digest(account.secret.encode(), secret.encode("utf-8", "surrogatepass"))
            ):
                return account
        return None

    # Disaster

    def backup(self) -> Backup:
        """Return everything that is held now."""
        return Backup(self.revision, dict(self._versions), dict(self._accounts))

    def restore(self, backup: Backup) -> None:
        """Hold what ``backup`` holds, under a new epoch that is later than any before."""
        self.epoch = _new_epoch(self.epoch)
        self.revision = self._floor = backup.revision
        self._accounts = dict(backup.accounts)
        self._changes.clear()
        self._versions = {
            key: tuple(replace(each, position=Position(self.epoch, each.position.revision)) for each in versions)
            for key, versions in backup.versions.items()
        }

    def _append(self, key: ConfigKey, content: bytes | None, changed_by: int) -> Version:
        before = self._versions.get(key, ())
        self.revision += 1
        version = Version(key, len(before) + 1, self.position, changed_by, datetime.now(timezone.utc), content)
        self._versions[key] = (*before, version)
        if len(self._changes) == REPLAYED:
            self._floor = self._changes[0].position.revision
        self._changes.append(version)
        return version


def _new_epoch(before: str) -> str:
    """Return 48 bits of creation time in ms, later than in the epoch ``before``, and 48 random bits, in hex."""
    moment = time.time_ns() // 1_000_000
    if before:
        moment = max(moment, int(before[:12], 16) + 1)
    return f"{moment:012x}{secrets.token_hex(6)}"


def _describe(name: str, versions: Iterable[Version], home: str) -> ConfigInfo:
    """Return the row of a name that stands for ``versions``; the environment ``home`` tells ``valid_from``."""
    by_time = sorted(versions, key=lambda version: version.position.revision)
    running = [version for version in by_time if not version.deleted]
    others = running[0] if running else by_time[-1]
    shown = next((version for version in running if version.key == (name, home, "main")), others)
    return ConfigInfo(name=name, is_valid=bool(running), valid_from=shown.timestamp, updated_at=by_time[-1].timestamp)
