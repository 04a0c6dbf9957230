"""Streams and changes counted, in plain numbers. Knows kinds and endings; nothing of who asks for the numbers."""

from __future__ import annotations

from collections import Counter
from typing import Final

from .subscription import Beat, End


class StreamTally:
    """What has happened to the streams of a process since it began."""

    def __init__(self) -> None:
        self.opened: Final[Counter[Beat]] = Counter()
        """How many were opened, by kind."""
        self.ended: Final[Counter[tuple[Beat, End]]] = Counter()
        """How many have ended, by kind and reason; one that was too slow was cut."""
        self.events: Final[Counter[Beat]] = Counter()
        """How many changes were handed to a stream, by its kind; heartbeats, states and replays not counted."""
