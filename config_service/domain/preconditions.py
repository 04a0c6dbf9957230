"""What a change is conditional on: the version that its author has seen. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import PreconditionFailedError
from .keys import ConfigKey


@dataclass(frozen=True, slots=True)
class Precondition:
    """Conditions on the newest version of a config; without any, a change always applies.

    ``versions``: the newest version, a tombstone included, is one of these. ``running``: something is being served.
    ``absent``: nothing is being served (never published, or deleted).
    """

    versions: frozenset[int] | None = None
    running: bool = False
    absent: bool = False

    def check(self, key: ConfigKey, newest: int, *, running: bool) -> None:
        """Return when ``newest`` (0: none yet) meets every condition, else raise PreconditionFailedError."""
        found = f"version {newest} is {'running' if running else 'deleted'}" if newest else "nothing was published yet"
        if self.versions is not None and newest not in self.versions:
            wanted = " or ".join(str(version) for version in sorted(self.versions)) or "none"
            raise PreconditionFailedError(
                f"{key}: the change was made on version {wanted}, but {found}; fetch it, merge, and try again"
            )
        if self.running and not running:
            raise PreconditionFailedError(f"{key}: the change needs a running version, but {found}")
        if self.absent and running:
            raise PreconditionFailedError(f"{key}: the config was to be created as new, but {found}")


UNCONDITIONAL = Precondition()
