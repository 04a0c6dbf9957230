"""What a fingerprint is taken of: all that a change made and its log entry does not tell, in the clear.

Knows records and the chain. Whoever commits takes a fingerprint of what he commits, and whoever verifies of what the
store holds; both do it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import Final

from ..domain.records import NewSchema, NewToken, NewVersion, StoredSchema, StoredToken, Version
from .chain import Chain

_ELSEWHERE: Final = frozenset({"revision", "document", "activation", "cancelled", "archived"})
"""What of a version its fingerprint leaves out: its entry tells it, it is sealed, or a later entry tells it."""
_VERSION: Final = tuple(field.name for field in fields(Version) if field.name not in _ELSEWHERE)
_TOKEN: Final = tuple(field.name for field in fields(NewToken) if field.name != "keys")


def of_version(chain: Chain, version: NewVersion | Version, content: bytes | None) -> str:
    """Return the fingerprint of a version with its document in the clear; None is a tombstone."""
    told = {name: getattr(version, name) for name in _VERSION}
    return chain.fingerprint({"what": "version", **told, "content": content})


def of_schema(chain: Chain, schema: NewSchema | StoredSchema, content: bytes | None) -> str:
    """Return the fingerprint of a schema in the clear; None is a removal."""
    told = {"key": schema.key, "number": schema.number, "changed_by": schema.changed_by, "timestamp": schema.timestamp}
    return chain.fingerprint({"what": "schema", **told, "content": content})


def of_token(chain: Chain, token: NewToken | StoredToken) -> str:
    """Return the fingerprint of what never changes of a token."""
    return chain.fingerprint({"what": "token", **{name: getattr(token, name) for name in _TOKEN}})


def of_keys(chain: Chain, keys: Iterable[tuple[bytes, datetime | None]]) -> str:
    """Return the fingerprint of a token's keys in the clear, each with its retirement, the newest first."""
    told = [{"key": key, "retires_at": retires_at} for key, retires_at in keys]
    return chain.fingerprint({"what": "token keys", "keys": told})
