"""Tokens of the in-memory service: who may read what, and under which key it is sealed.

Knows scopes and keys. Knows nothing of configs' contents, HTTP or time.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

from ..crypto import KEY_SIZE, key_id
from ._faults import MisuseError

SERVICE_SCOPES: Final = ("*@*:read,export",)
"""What a new service token has when nothing else is asked for."""

_RIGHTS: Final = frozenset({"read", "export", "write", "admin"})
_GLOB: Final = re.compile(r"[A-Za-z0-9._*?-]{1,128}\Z")
_SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Credentials:
    """What a client needs besides the URL: a token's secret, and its key as 64 hex characters. The repr hides both."""

    token: str = field(repr=False)
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """Rights over the configs that match ``configs`` in the environments that match ``environments``."""

    configs: str
    environments: str
    rights: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Return the scope that ``configs@environments:right,right`` spells. Raises MisuseError."""
        globs, _, rights = text.partition(":")
        configs, _, environments = globs.partition("@")
        granted = frozenset(rights.split(","))
        if not _GLOB.match(configs) or not _GLOB.match(environments) or not granted <= _RIGHTS:
            raise MisuseError(
                f"scope {text!r}: write configs@environments:right,right such as orders-*@prod:read,export; "
                "the rights are read, export, write and admin"
            )
        return cls(configs, environments, granted)


@dataclass(frozen=True, slots=True, repr=False)
class Account:
    """A token. ``keys``: the newest first; more than one during the overlap of a rotation."""

    id: int
    secret: str
    keys: tuple[bytes, ...]
    environment: str
    scopes: tuple[Scope, ...]
    revoked: bool = False

    @classmethod
    def new(cls, number: int, environment: str, scopes: Collection[str]) -> Account:
        """Return a token with a secret and a key of its own."""
        secret = f"cst_{secrets.token_urlsafe(_SECRET_BYTES)}"
        return cls(number, secret, (secrets.token_bytes(KEY_SIZE),), environment, tuple(map(Scope.parse, scopes)))

    @property
    def credentials(self) -> Credentials:
        """The secret and the newest key."""
        return Credentials(self.secret, self.keys[0].hex())

    def may(self, right: str, name: str, environment: str) -> bool:
        """Tell whether this token holds ``right`` over config ``name`` in ``environment``."""
        return any(
            right in scope.rights and fnmatchcase(name, scope.configs) and fnmatchcase(environment, scope.environments)
            for scope in self.scopes
        )

    def may_anywhere(self, right: str, name: str) -> bool:
        """Tell whether this token holds ``right`` over config ``name`` in some environment."""
        return any(right in scope.rights and fnmatchcase(name, scope.configs) for scope in self.scopes)

    def key_for(self, held: Collection[str] | None) -> bytes:
        """Return the key to seal under for a client that holds the keys with these ids.

        None: the client does not say, so it may be one from before the rotation, and gets the oldest key.
        """
        if held is None:
            return self.keys[-1]
        return next((key for key in self.keys if key_id(key) in held), self.keys[0])

    def rekeyed(self, *, overlap: bool) -> Account:
        """Return this token with a fresh newest key, the ones before it kept during an overlap."""
        return replace(self, keys=(secrets.token_bytes(KEY_SIZE), *(self.keys if overlap else ())))

    def retired(self) -> Account:
        """Return this token with its newest key only."""
        return replace(self, keys=self.keys[:1])
