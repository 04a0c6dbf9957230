"""Fixtures for every test. Imports nothing of the service: the SDK's tests also run where only the SDK is installed."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep variables of the developer's own service out of the tests."""
    for name in list(os.environ):
        if name.startswith(("CONFIG_SERVER_", "CONFIG_SERVICE_")):
            monkeypatch.delenv(name)
