"""Fixtures for every test. Imports nothing of the service: the SDK's tests also run where only the SDK is installed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import mongo
import pytest
from postgres import HOW_TO, OwnServer, PostgresServer, any_server, binaries, is_available, running_server

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL, one for all tests of this process."""
    if not is_available():
        pytest.skip(HOW_TO)
    with any_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of an empty store on a real PostgreSQL."""
    return postgres.schema()


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mongo.MongoServer]:
    """A real server that speaks MongoDB's protocol, one for all tests of this process."""
    if not mongo.is_available():
        pytest.skip(mongo.HOW_TO)
    with mongo.any_server(tmp_path_factory.mktemp("mongodb")) as server:
        yield server


@pytest.fixture
def mongodb_url(mongodb: mongo.MongoServer) -> Iterator[str]:
    """The URL of an empty store on it."""
    yield mongodb.database()
    mongodb.drop()


@pytest.fixture
def own_postgres() -> Iterator[OwnServer]:
    """A real PostgreSQL for this test alone, which may be stopped and killed."""
    if binaries() is None:
        pytest.skip(HOW_TO)
    with running_server() as server:
        yield server
