"""Fixtures for every test. Imports nothing of the service: the SDK's tests also run where only the SDK is installed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what fixtures of a wider scope, and the processes that they start, write out of the developer's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "caches"))
        yield


@pytest.fixture(autouse=True)
def _no_cache_of_another_test(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test begin with nothing on disk: the SDK keeps last known values, and ports come back."""
    place = tmp_path_factory.getbasetemp() / "caches" / str(next(_numbers))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep variables of the developer's own service out of the tests."""
    for name in list(os.environ):
        if name.startswith(("CONFIG_SERVER_", "CONFIG_SERVICE_")):
            monkeypatch.delenv(name)
