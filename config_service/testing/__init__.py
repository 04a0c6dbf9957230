"""For the tests of whoever extends the service: the suites that every implementation of one of its protocols passes.

    from config_service.testing import StoreContract

    class TestMyStore(StoreContract):
        def create_store(self, directory): return MyStore(directory)
        def stalled(self, store): ...

Needs pytest beside the ``server`` extra.
"""

from __future__ import annotations

import pytest

# Before the import: so a broken law shows the values it was broken by.
pytest.register_assert_rewrite("config_service.testing.store_contract")

from .store_contract import (  # noqa: E402
    StoreContract,
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
