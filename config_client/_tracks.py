"""What a watch remembers of one config. Belongs to the watch's rules; does no I/O."""

from __future__ import annotations

from ._rounds import Seen
from .errors import ConfigClientError
from .protocol import Held


class Track:
    """One watched config. Written by the watch that follows it, and by nobody else while that runs.

    ``environment`` and ``label`` None: as the service's defaults are. ``patient``: it may come into being later, so its
    absence at the beginning is no final error.
    """

    __slots__ = ("environment", "fault", "found", "gone", "label", "name", "patient", "seen", "tombstone")

    def __init__(self, name: str, environment: str | None, label: str | None, *, patient: bool = False) -> None:
        self.name = name
        self.environment = environment
        self.label = label
        self.patient = patient
        self.seen = Seen()
        self.found = False
        """Whether there ever was a version."""
        self.gone = ""
        """Why it is not there: missing, deleted or refused, once that was reported; else empty."""
        self.tombstone = False
        """Whether ``seen`` is a deletion."""
        self.fault: ConfigClientError | None = None
        """What kept the state in ``seen`` from being taken."""

    def __repr__(self) -> str:
        return f"Track({self.name!r}, {self.environment!r}, {self.label!r})"

    @property
    def held(self) -> Held:
        """What the service is told that this client holds.

        Nothing, where the service has to say once more how things stand: the state could not be opened, or the config
        was said to be absent without a word of when.
        """
        doubtful = self.seen.unopened or (bool(self.gone) and not self.tombstone)
        return Held(self.name, self.environment, self.label, None if doubtful else self.seen.position)

    @property
    def query(self) -> dict[str, str]:
        """The query of a request for this config."""
        named = {"environment": self.environment, "label": self.label}
        return {name: value for name, value in named.items() if value is not None}
