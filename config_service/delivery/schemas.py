"""The schemas in force: the newest one of every config, in memory. Written by the feed alone; reads take no lock.

Knows schemas in the clear and which running versions fit them. Knows nothing of stores, streams or HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..background import LARGE, beside
from ..domain.documents import Document
from ..domain.errors import InvalidSchemaError, SchemaViolationError, Violation
from ..domain.keys import ConfigKey
from ..domain.schemas import Schema

_SHOWN = 20
"""Violations that a message spells out; all of them stand beside it."""


@dataclass(frozen=True, repr=False)
class Held:
    """The newest schema of a config; ``raw`` None: it was removed. Its repr does not show it."""

    key: ConfigKey
    number: int
    raw: bytes | None

    def __repr__(self) -> str:
        return f"Held({self.key}, number={self.number}, removed={self.raw is None})"

    @cached_property
    def compiled(self) -> Schema | None:
        """The schema, ready for use. Raises InvalidSchemaError when this version of the service cannot use it."""
        return None if self.raw is None else Schema(self.raw)


class Schemas:
    """The newest schema of every key that ever had one, and what fits."""

    __slots__ = ("_by_key", "_fitting")

    def __init__(self) -> None:
        self._by_key: dict[ConfigKey, Held] = {}
        self._fitting: dict[ConfigKey, tuple[int, int, bool]] = {}

    def put(self, key: ConfigKey, number: int, raw: bytes | None) -> None:
        """Validate by ``raw`` from now on (None: by nothing), unless a newer schema of ``key`` is held already."""
        held = self._by_key.get(key)
        if held is None or held.number < number:
            self._by_key[key] = Held(key, number, raw)

    def get(self, key: ConfigKey) -> Held | None:
        """Return the newest schema of ``key``, a removal included, or None when it never had one."""
        return self._by_key.get(key)

    def number(self, key: ConfigKey) -> int:
        """Return the number of the newest schema of ``key``, a removal included; 0 when it never had one."""
        held = self._by_key.get(key)
        return 0 if held is None else held.number

    async def violations(self, key: ConfigKey, content: bytes) -> tuple[Violation, ...]:
        """Return where ``content`` does not fit the newest schema of ``key``; empty when it fits or there is none.

        A large document is validated beside the event loop. Raises InvalidSchemaError when the schema cannot be used.
        """
        held = self._by_key.get(key)
        schema = None if held is None else held.compiled
        if schema is None:
            return ()
        return schema.violations(content) if len(content) < LARGE else await beside(lambda: schema.violations(content))

    async def check(self, key: ConfigKey, content: bytes) -> int:
        """Return the number of the newest schema of ``key``, which ``content`` fits; 0 when there never was one.

        Raises SchemaViolationError, or InvalidSchemaError when the schema cannot be used.
        """
        number = self.number(key)
        found = await self.violations(key, content)
        if not found:
            return number
        shown = "; ".join(map(str, found[:_SHOWN])) + (
            f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        )
        raise SchemaViolationError(f"{key}: the document does not fit schema {number}: {shown}", found)

    def fits(self, document: Document) -> bool:
        """Tell whether the running ``document`` fits its newest schema. Looked into once per version and schema."""
        held = self._by_key.get(document.key)
        if held is None or held.raw is None or document.content is None:
            return document.content is not None
        known = self._fitting.get(document.key)
        if known is not None and known[:2] == (document.version, held.number):
            return known[2]
        try:
            fits = held.compiled is None or not held.compiled.violations(document.content)
        except InvalidSchemaError:
            fits = False
        self._fitting[document.key] = (document.version, held.number, fits)
        return fits
