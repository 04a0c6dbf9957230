"""What a token may do: rights over configs by glob, in environments by glob. Pure. Deny by default."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from .errors import InvalidRequestError

_GLOB: Final = re.compile(r"[A-Za-z0-9._*?-]{1,128}\Z")


class Right(str, Enum):
    """One kind of access. They are independent: ``write`` does not include ``read``."""

    READ = "read"
    """Fetch sealed, list and watch."""
    EXPORT = "export"
    """Fetch in plaintext."""
    WRITE = "write"
    """Publish, roll back, delete, and see the history."""
    ADMIN = "admin"
    """Manage tokens, backups and the keys of the store, and read the log; all, whatever the globs of its scope."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Rights over the configs whose name matches ``configs`` in the environments that match ``environments``.

    Globs know ``*`` and ``?`` and match the whole name, case-sensitively.
    """

    configs: str
    environments: str
    rights: frozenset[Right]

    def __str__(self) -> str:
        return f"{self.configs}@{self.environments}:{','.join(sorted(right.value for right in self.rights))}"

    def covers(self, right: Right, name: str, environment: str) -> bool:
        """Tell whether this scope grants ``right`` over config ``name`` in ``environment``."""
        return right in self.rights and _matches(name, self.configs) and _matches(environment, self.environments)

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Return the scope that ``configs@environments:right,right`` spells, such as ``orders-*@prod:read,export``.

        Raises InvalidRequestError.
        """
        globs, _, rights = text.partition(":")
        configs, _, environments = globs.partition("@")
        if not _GLOB.match(configs) or not _GLOB.match(environments):
            raise InvalidRequestError(
                "invalid scope: write configs@environments:right,right with globs of A-Z a-z 0-9 . _ - * ?, "
                "such as orders-*@prod:read,export"
            )
        try:
            granted = frozenset(Right(right) for right in rights.split(","))
        except ValueError:
            raise InvalidRequestError("invalid scope: the rights are read, export, write and admin") from None
        return cls(configs, environments, granted)


SERVICE_SCOPES: Final = (Scope("*", "*", frozenset({Right.READ, Right.EXPORT})),)
"""What a new service token has when nothing else is asked for."""
ADMIN_SCOPES: Final = (Scope("*", "*", frozenset(Right)),)
"""Everything; the first token of a store."""


def allows(scopes: Iterable[Scope], right: Right, name: str, environment: str) -> bool:
    """Tell whether any of ``scopes`` grants ``right`` over config ``name`` in ``environment``."""
    return any(scope.covers(right, name, environment) for scope in scopes)


def allows_admin(scopes: Iterable[Scope]) -> bool:
    """Tell whether any of ``scopes`` grants the administration of tokens."""
    return any(Right.ADMIN in scope.rights for scope in scopes)


def _matches(text: str, glob: str) -> bool:
    # Most scopes cover everything, and a watch of thousands of configs asks thousands of times.
    return glob == "*" or fnmatchcase(text, glob)
