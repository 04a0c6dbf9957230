"""The pytest plugin of this package: a config service for one test.

pytest loads it in every run where the package is installed, so it imports nothing before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from config_client.testing.service import InMemoryService


@pytest.fixture
def config_server() -> Iterator[InMemoryService]:
    """Run an in-memory config service for this test: ``publish`` to it, connect with ``config_server.options()``."""
    from config_client.testing.service import InMemoryService  # noqa: PLC0415 - see above

    with InMemoryService() as service:
        yield service


@pytest.fixture
def config_environment(config_server: InMemoryService, monkeypatch: pytest.MonkeyPatch) -> InMemoryService:
    """Let ``ConfigClient.from_env()``, wherever the application calls it, find the service of this test; return it."""
    for name, value in config_server.environ.items():
        monkeypatch.setenv(name, value)
    return config_server
