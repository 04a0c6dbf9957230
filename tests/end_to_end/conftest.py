"""A real service in a child process, and the SDK's clients and watches on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from config_client import Change, ConfigClient, GetOptions, Options, Snapshot
from config_service.process import Credentials, Operator, ServiceProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> ServiceProcess:
    """Make a store once, for services to begin with."""
    return ServiceProcess(tmp_path_factory.mktemp("new-store"))


@pytest.fixture
def service(tmp_path: Path, new_store: ServiceProcess) -> Iterator[ServiceProcess]:
    """Run a service of this test's own."""
    with ServiceProcess(tmp_path, copy_of=new_store) as process:
        yield process


@pytest.fixture
def operator(service: ServiceProcess) -> Operator:
    """Return an operator with every right."""
    return service.operator()


@pytest.fixture
def access(operator: Operator) -> Credentials:
    """Return a service token with read and export."""
    return operator.mint("app")


@pytest.fixture
def connect(service: ServiceProcess, access: Credentials) -> Iterator[Callable[..., ConfigClient]]:
    """Make clients of the service; options and credentials may be overridden. Closes them at the end."""
    clients: list[ConfigClient] = []

    def make(credentials: Credentials = access, **options: Any) -> ConfigClient:
        quick = {"retry_delay": 0.02, "max_retry_delay": 0.2, **options}
        clients.append(
            ConfigClient(
                Options(
                    host=quick.pop("host", service.url),
                    service_token=quick.pop("service_token", credentials.token),
                    encryption_key=quick.pop("encryption_key", credentials.key),
                    **quick,
                )
            )
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@dataclass
class Watching:
    """A ``watch_and_decode`` on a daemon thread, and all that it said."""

    snapshot: Snapshot[Any]
    versions: list[int | None] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)
    erred: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread = field(default_factory=threading.Thread)

    def report(self, error: Exception) -> None:
        """Take an error, as ``on_error``."""
        with self.erred:
            self.errors.append(error)
            self.erred.notify_all()

    def wait_for_error(self, kind: type[Exception], timeout: float = 10.0) -> bool:
        """Wait until an error of ``kind`` was reported."""
        with self.erred:
            return self.erred.wait_for(lambda: any(isinstance(error, kind) for error in self.errors), timeout)


@pytest.fixture
def watch(connect: Callable[..., ConfigClient]) -> Callable[..., Watching]:
    """Start watching a config; returns at once."""

    def start(name: str, target: type = dict, opts: GetOptions | None = None, **options: Any) -> Watching:
        watching = Watching(Snapshot())

        def note(change: Change[Any]) -> None:
            watching.versions.append(change.version)

        def run() -> None:
            try:
                client.watch_and_decode(name, target, watching.snapshot, opts)
            except Exception as error:
                watching.raised.append(error)

        watching.snapshot.on_change(note)
        client = connect(on_error=watching.report, **options)
        watching.thread = threading.Thread(target=run, daemon=True)
        watching.thread.start()
        return watching

    return start
