"""What parts of the service may tell a tracer: that work within a request begins and ends. No tracer is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Spans(Protocol):
    """Where pieces of work are told. Without one (None in its place) nothing is, and it costs a comparison."""

    def begin(self, name: str, attributes: dict[str, str | int]) -> Callable[[str], None] | None:
        """Begin a span below that of the request under way; None when no request is, or it is not sampled.

        What it returns ends the span, given the type of the error that ended the work, or an empty text.
        """
