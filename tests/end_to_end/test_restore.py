"""Backup and restore under the eyes of real watchers: they end on what the restored service runs."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable
from typing import Any

import pytest

from config_client import Change, Snapshot
from config_service.process import Operator, ServiceProcess

BACKUP = "store.backup"


class Holding:
    """Waits for the values of a snapshot."""

    def __init__(self, snapshot: Snapshot[Any]) -> None:
        self._snapshot = snapshot
        self._changed = threading.Condition()
        snapshot.on_change(self._notify)

    def _notify(self, _change: Change[Any]) -> None:
        with self._changed:
            self._changed.notify_all()

    def reaches(self, number: int) -> bool:
        """Wait until the snapshot holds ``number``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._snapshot.load() == {"number": number}, 60)


def run(service: ServiceProcess, *arguments: str) -> dict[str, Any]:
    """Run a command that succeeds and return what it printed as JSON."""
    done = service.run_cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def back_up(service: ServiceProcess, file: str = BACKUP) -> dict[str, Any]:
    """Copy the running service's store."""
    return run(service, "backup", file, "--url", service.url, "--token", service.admin_token)


def lose_store(service: ServiceProcess) -> None:
    """Stop the service and lose its store, as a disk does."""
    service.kill()
    for path in service.directory.glob("config.db*"):
        path.unlink()


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.long)], ids=["running", "stopped"])
def test_watchers_end_on_what_the_restored_service_runs(
    service: ServiceProcess, operator: Operator, watch: Callable[..., Any], connect: Callable[..., Any], running: bool
) -> None:
    """They held version 5 and the backup is of 3: both kinds of watch go to 3, and follow the next publish."""
    for number in (1, 2, 3):
        operator.publish("orders", {"number": number})
    watching, client = watch("orders"), connect()
    subscription = client.subscribe("orders", dict, timeout=60)
    watchers = [Holding(watching.snapshot), Holding(subscription.snapshot)]
    if running:
        told = back_up(service)
    else:
        service.stop()
        told = run(service, "backup", BACKUP, "--store-url", service.environment["CONFIG_SERVER_STORE_URL"])
        service.start()
    for number in (4, 5):
        operator.publish("orders", {"number": number})
    assert all(watcher.reaches(5) for watcher in watchers)
    assert stat.S_IMODE((service.directory / BACKUP).stat().st_mode) == 0o600

    lose_store(service)
    restored = run(service, "restore", BACKUP)
    assert restored["restored_epoch"] > told["epoch"] == restored["epoch"]
    assert restored["restored_revision"] == told["revision"] + 1
    service.start()
    assert all(watcher.reaches(3) for watcher in watchers)
    assert client.get_raw("orders") == {"number": 3}
    assert operator.publish("orders", {"number": 6}) == 4
    assert all(watcher.reaches(6) for watcher in watchers)
    assert watching.raised == []


@pytest.mark.long
def test_a_second_restore_of_an_older_backup_is_followed_too(
    service: ServiceProcess, operator: Operator, watch: Callable[..., Any]
) -> None:
    """Each restore begins later than the one before, also when its backup is older."""
    operator.publish("orders", {"number": 1})
    watching = watch("orders")
    watcher = Holding(watching.snapshot)
    back_up(service, "first.backup")
    operator.publish("orders", {"number": 2})
    back_up(service, "second.backup")
    operator.publish("orders", {"number": 3})
    assert watcher.reaches(3)
    epochs = []
    for file, number in (("second.backup", 2), ("first.backup", 1)):
        lose_store(service)
        epochs.append(run(service, "restore", file)["restored_epoch"])
        service.start()
        assert watcher.reaches(number)
    assert epochs == sorted(epochs)
