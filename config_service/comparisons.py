"""What differs between two documents of a config: staged, running, saved, or running in another environment.

Knows rights and where documents are. What it returns holds values: both sides need the right to write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from config_client.formats import parse_json_object

from .background import beside
from .domain.differences import Difference, differences
from .domain.errors import InvalidRequestError
from .domain.keys import ConfigKey, check_environment
from .domain.names import Which, is_savepoint
from .domain.scopes import Right
from .draft_operations import DraftOperations
from .finding import Finder
from .security.tokens import Token

_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}\Z")
_RULE: Final = "staged, running, the number of a version, the name of a savepoint, or running@ENVIRONMENT"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: the draft when ``staged``; otherwise what runs, or a version by number or savepoint.

    With ``environment``: what runs there instead of in the environment of the config asked for.
    """

    staged: bool = False
    version: Which | None = None
    environment: str | None = None

    @classmethod
    def parse(cls, text: str) -> Side:
        """Return the side that ``text`` spells. Raises InvalidRequestError, which does not repeat it."""
        if text == "staged":
            return cls(staged=True)
        if text == "running":
            return cls()
        if _VERSION.match(text):
            return cls(version=int(text))
        if is_savepoint(text):
            return cls(version=text)
        where, _, environment = text.partition("@")
        if where != "running" or not environment:
            raise InvalidRequestError(f"invalid side of a difference: {_RULE}")
        return cls(environment=check_environment(environment))


class Comparisons:
    """Compares what a token may write."""

    def __init__(self, *, finder: Finder, drafts: DraftOperations) -> None:
        self._finder = finder
        self._drafts = drafts

    async def compare(self, token: Token, key: ConfigKey, old: Side, new: Side) -> list[Difference]:
        """Return what leads from ``old`` to ``new`` of ``key``, see ``domain.differences``; empty when nothing differs.

        Raises AccessDeniedError without the right to write in every environment concerned; NotFoundError when a side
        has no document; StoreError.
        """
        keys = [_key_of(key, side) for side in (old, new)]
        for each in (key, *keys):
            token.require(Right.WRITE, each.name, each.environment)
        before, after = [await self._content(token, each, side) for each, side in zip(keys, (old, new), strict=True)]
        return await beside(lambda: _differences(before, after))

    async def _content(self, token: Token, key: ConfigKey, side: Side) -> bytes:
        if side.staged:
            return (await self._drafts.read(token, key)).content
        number = None if side.version is None else await self._finder.number(key, side.version)
        return (await self._finder.find(key, number, served=False)).content or b""


def _key_of(key: ConfigKey, side: Side) -> ConfigKey:
    return key if side.environment is None else ConfigKey.of(key.name, side.environment, key.label)


def _differences(before: bytes, after: bytes) -> list[Difference]:
    return differences(parse_json_object(before, strict=False), parse_json_object(after, strict=False))
