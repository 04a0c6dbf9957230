"""What a verification is asked and what it tells: anchors, how far it is, and what is not as it has to be. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .domain.errors import InvalidRequestError
from .domain.records import Head

_ANCHOR: Final = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Anchor:
    """A revision and its link, as they were once: kept elsewhere, they tell whether history was rewritten since."""

    revision: int
    link: bytes

    def __str__(self) -> str:
        return f"{self.revision}:{self.link.hex()}"

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Return the anchor that ``REVISION:LINK`` spells. Raises InvalidRequestError."""
        if _ANCHOR.fullmatch(text.strip()) is None:
            raise InvalidRequestError("invalid anchor: REVISION:LINK, as `config-service audit head` prints it")
        revision, link = text.strip().split(":")
        return cls(int(revision), bytes.fromhex(link))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it has to be, and the revision at which it shows (None: at none in particular)."""

    revision: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a verification has come: revisions looked at, of how many."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found. ``more`` counts findings that are not told one by one."""

    head: Head
    findings: tuple[Finding, ...]
    more: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
