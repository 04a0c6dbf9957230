"""The values that travel between the SDK and an application.

Knows no I/O and no format; ``protocol`` turns these values into JSON and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Format(str, Enum):
    """A plaintext rendering of a config, as ``GET …/formatted`` offers it."""

    JSON = "json"
    YAML = "yaml"
    ENV = "env"


@dataclass(frozen=True, slots=True)
class ConfigInfo:
    """One row of ``ConfigClient.list()``.

    ``is_valid``: a version is being served and fits its schema. ``valid_from``: when the running version was first
    served. Both times are aware, in UTC.
    """

    name: str
    is_valid: bool
    valid_from: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ConfigChangeEvent:
    """One change of a config, as ``watch`` delivers it.

    ``version`` counts 1, 2, 3 … per config, environment and label. ``changed_by`` is the integer id of the token
    that published (0: the service itself). ``timestamp`` is aware, in UTC.

    The remaining fields are None (or False) when the service does not tell them: ``environment`` and ``label`` name
    the key that changed, ``epoch`` and ``revision`` its place in the service's history, ``deleted`` a deletion.
    """

    config_name: str
    version: int
    changed_by: int
    timestamp: datetime
    environment: str | None = None
    label: str | None = None
    epoch: str | None = None
    revision: int | None = None
    deleted: bool = False
