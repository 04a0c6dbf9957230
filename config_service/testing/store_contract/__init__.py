"""The laws of a ``ConfigStore`` as a pytest suite. Public by way of ``config_service.testing``."""

from __future__ import annotations

from .batches import BatchLaws
from .concurrency import ConcurrencyLaws
from .lifecycle import LifecycleLaws
from .naming import NamingLaws
from .restoring import RestoringLaws
from .scheduling import SchedulingLaws
from .sealing import SealingLaws
from .sharing import SharingLaws
from .staging import StagingLaws
from .suite import (
    check_laws,
    new_archive,
    new_draft,
    new_keys,
    new_rotation,
    new_savepoint,
    new_schema,
    new_token,
    new_version,
)
from .tokens import TokenLaws
from .versions import VersionLaws

__all__ = [
    "StoreContract",
    "check_laws",
    "new_archive",
    "new_draft",
    "new_keys",
    "new_rotation",
    "new_savepoint",
    "new_schema",
    "new_token",
    "new_version",
]


class StoreContract(
    LifecycleLaws,
    VersionLaws,
    BatchLaws,
    SchedulingLaws,
    NamingLaws,
    StagingLaws,
    SealingLaws,
    ConcurrencyLaws,
    TokenLaws,
    RestoringLaws,
    SharingLaws,
):
    """Inherit, name the class ``Test…``, say how to create a store and how to stall it; pytest does the rest."""
