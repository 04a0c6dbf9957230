"""Subscriptions: one stream for many configs, on a thread and on a task, through everything that may happen."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config_client import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    GetOptions,
    NotFoundError,
    RefusedError,
    Snapshot,
    State,
    Status,
    UnauthorizedError,
    UnmarshalError,
)

PATIENCE = 60.0


@dataclass
class Orders:
    host: str
    port: int = 1


def eventually(condition: Callable[[], bool]) -> bool:
    """Look at ``condition`` again and again, for what no event tells of; tell whether it came to hold."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def reaches(subscription: Any, state: State, reason: str | None = None) -> bool:
    """Wait until the subscription stands so; tell whether it came to."""
    return eventually(
        lambda: subscription.status.state is state and (reason is None or subscription.status.reason == reason)
    )


def wait_for_value(snapshot: Snapshot[Any], value: object) -> bool:
    """Wait until the snapshot holds ``value``, whatever its version."""
    return eventually(lambda: snapshot.load() == value)


class Hindrance:
    """A TCP proxy that takes its time with all that it forwards, or keeps the bodies of state-first streams back."""

    def __init__(self, url: str, seconds: float, *, keeps_bodies: bool) -> None:
        host, _, port = url.removeprefix("http://").rpartition(":")
        self._target = (host, int(port))
        self._keeps_bodies = keeps_bodies
        self._seconds = seconds
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def close(self) -> None:
        """End every connection and thread."""
        self._closed.set()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        # Whoever is still being started has been started by one of those before.
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        for each in (self._listener, *self._sockets):
            each.close()

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            try:
                service = socket.create_connection(self._target, timeout=PATIENCE)
            except OSError:
                client.close()
                continue
            service.settimeout(None)
            self._sockets.append(service)
            asked = threading.Event()
            self._start(self._upwards, client, service, asked)
            self._start(self._downwards, service, client, asked)
            if self._closed.is_set():
                return

    def _upwards(self, source: socket.socket, sink: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if data.startswith(b"POST "):
                    asked.set()
                self._closed.wait(self._seconds)
                sink.sendall(data)
        _end(source, sink)

    def _downwards(self, source: socket.socket, sink: socket.socket, asked: threading.Event) -> None:
        told = False
        with suppress(OSError):
            while data := source.recv(65536):
                self._closed.wait(self._seconds)
                if not (self._keeps_bodies and asked.is_set()):
                    sink.sendall(data)
                elif not told:
                    head, end, _ = data.partition(b"\r\n\r\n")
                    told = bool(end)
                    sink.sendall(head + end)
        _end(source, sink)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hindered(backend: Any) -> Iterator[Callable[..., str]]:
    """Put a hindrance before the service, and return its URL."""
    made: list[Hindrance] = []

    def make(*, seconds: float = 0.0, keeps_bodies: bool = False) -> str:
        made.append(Hindrance(backend.options().host, seconds, keeps_bodies=keeps_bodies))
        return made[-1].url

    yield make
    for each in made:
        each.close()


class Connected:
    """Metrics that remember when the connection was up."""

    def __init__(self) -> None:
        self.told: list[bool] = []

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        """Nothing is made of it."""

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        """Nothing is made of it."""

    def status(self, config_name: str, status: Status) -> None:
        """Nothing is made of it."""

    def connected(self, up: bool) -> None:
        """Remember it."""
        self.told.append(up)


def test_the_first_value_is_there_and_every_change_follows(backend: Any, subscriber: Callable[..., Any]) -> None:
    """subscribe returns with the value; each change is swapped in, in order, while the status is LIVE."""
    backend.publish("orders", {"host": "db1"})
    orders = subscriber().subscribe("orders", Orders)
    versions: list[int | None] = []
    orders.on_change(lambda change: versions.append(change.version))
    assert orders.load() == Orders("db1")
    assert orders.snapshot.version == 1
    assert reaches(orders, State.LIVE)
    for version in (2, 3, 4):
        assert backend.publish("orders", {"host": f"db{version}"}) == version
        assert orders.wait_for(version, PATIENCE)
    assert orders.load() == Orders("db4")
    assert versions == [2, 3, 4]
    assert orders.error is None
    assert orders.age is not None


def test_many_configs_share_one_stream(backend: Any, subscriber: Callable[..., Any]) -> None:
    """Twenty subscriptions, each with its own environment or name, and no second stream."""
    where = [GetOptions(environment="prod"), GetOptions(label="feature/x"), GetOptions()]
    client, subscriptions = subscriber(), []
    for number in range(20):
        options = where[number % 3]
        place = {"environment": options.environment, "label": options.label}
        backend.publish(f"config-{number}", {"n": 1}, **place)
        subscriptions.append((f"config-{number}", place, client.subscribe(f"config-{number}", dict, options)))
    assert all(reaches(each, State.LIVE) for _, _, each in subscriptions)
    for name, place, _ in subscriptions:
        backend.publish(name, {"n": 2}, **place)
    assert all(each.wait_for(2, PATIENCE) for _, _, each in subscriptions)
    assert eventually(lambda: backend.watchers == 1)


def test_a_closed_subscription_stays_as_it_is_and_the_others_go_on(
    backend: Any, subscriber: Callable[..., Any]
) -> None:
    """After close the value is the last one, STOPPED; a new subscription of the same config is current again."""
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    client = subscriber()
    orders, payments = client.subscribe("orders", dict), client.subscribe("payments", dict)
    orders.close()
    orders.close()
    assert orders.status.state is State.STOPPED
    backend.publish("orders", {"n": 2})
    backend.publish("payments", {"n": 2})
    assert payments.wait_for(2, PATIENCE)
    assert orders.load() == {"n": 1}
    assert client.subscribe("orders", dict).load() == {"n": 2}
    assert payments.status.state is not State.STOPPED


def test_one_config_may_be_subscribed_to_twice(backend: Any, subscriber: Callable[..., Any]) -> None:
    """Each has its own target and snapshot, and closing one leaves the other."""
    backend.publish("orders", {"host": "db1"})
    client = subscriber()
    first, second = client.subscribe("orders", dict), client.subscribe("orders", Orders)
    backend.publish("orders", {"host": "db2"})
    assert first.wait_for(2, PATIENCE)
    assert second.wait_for(2, PATIENCE)
    first.close()
    backend.publish("orders", {"host": "db3"})
    assert second.wait_for(3, PATIENCE)
    assert (first.load(), second.load()) == ({"host": "db2"}, Orders("db3"))


def test_many_subscriptions_in_quick_succession_do_not_starve_the_stream(
    backend: Any, subscriber: Callable[..., Any], hindered: Callable[..., str]
) -> None:
    """They come faster than a stream opens, and still the first one sees its change meanwhile, and all get values."""
    for number in range(8):
        backend.publish(f"config-{number}", {"n": number})
    backend.publish("orders", {"n": 1})
    client = subscriber(host=hindered(seconds=0.05))
    orders = client.subscribe("orders", dict)
    backend.publish("orders", {"n": 2})
    others: list[Any] = []
    while not orders.wait_for(2, 0.005):
        assert len(others) < 800
        others.append(client.subscribe(f"config-{len(others) % 8}", dict, timeout=0, required=False))
    while len(others) % 8 or len(others) < 16:
        others.append(client.subscribe(f"config-{len(others) % 8}", dict, timeout=0, required=False))
    for number, each in enumerate(others):
        assert each.wait_for(1, PATIENCE)
        assert each.load() == {"n": number % 8}
    assert reaches(orders, State.LIVE)


def test_no_change_is_lost_to_cuts(backend: Any, subscriber: Callable[..., Any]) -> None:
    """Changed again and again right after the connection was reset, two configs end on their newest versions."""
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    client = subscriber()
    orders, payments = client.subscribe("orders", dict), client.subscribe("payments", dict)
    seen: list[int | None] = []
    orders.on_change(lambda change: seen.append(change.version))
    for version in range(2, 10):
        backend.wait_for_watchers(1)
        backend.cut()
        assert backend.publish("orders", {"n": version}) == version
        assert backend.publish("payments", {"n": version}) == version
        assert orders.wait_for(version, PATIENCE)
        assert payments.wait_for(version, PATIENCE)
    assert seen == list(range(2, 10))
    assert reaches(orders, State.LIVE)


def test_an_outage_is_told_and_outlived(backend: Any, subscriber: Callable[..., Any]) -> None:
    """LIVE, then STALE with an error while the service is down, then LIVE with what was published meanwhile."""
    backend.publish("orders", {"n": 1})
    client = subscriber()
    orders = client.subscribe("orders", dict)
    assert reaches(orders, State.LIVE)
    backend.stop()
    assert reaches(orders, State.STALE, "connection lost")
    assert eventually(lambda: isinstance(orders.error, ConnectionError))
    assert orders.load() == {"n": 1}
    assert client.status.state is State.STALE
    backend.start()
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    assert reaches(orders, State.LIVE)
    assert eventually(lambda: client.status.state is State.LIVE)
    assert (orders.status.error, orders.error) == (None, None)


def test_a_deleted_config_keeps_its_value_and_may_come_back(backend: Any, subscriber: Callable[..., Any]) -> None:
    """STALE(deleted) with the last value, also across a cut; the next version makes it LIVE."""
    backend.publish("orders", {"n": 1})
    orders = subscriber().subscribe("orders", dict)
    backend.delete("orders")
    assert reaches(orders, State.STALE, "deleted")
    assert isinstance(orders.error, NotFoundError)
    backend.cut()
    backend.wait_for_watchers(1)
    assert orders.load() == {"n": 1}
    assert orders.status.reason == "deleted"
    assert backend.publish("orders", {"n": 1}) == 3
    assert orders.wait_for(3, PATIENCE)
    assert reaches(orders, State.LIVE)


def test_a_rollback_is_a_change_like_any_other(backend: Any, subscriber: Callable[..., Any]) -> None:
    """The old document comes with a newer version."""
    backend.publish("orders", {"n": 1})
    backend.publish("orders", {"n": 2})
    orders = subscriber().subscribe("orders", dict)
    assert backend.rollback("orders", 1) == 3
    assert orders.wait_for(3, PATIENCE)
    assert orders.load() == {"n": 1}


def test_what_does_not_fit_or_is_refused_leaves_the_value(backend: Any, subscriber: Callable[..., Any]) -> None:
    """A misfit and a refusal of ``pre_apply`` are STALE with their errors; the next good version is taken."""
    refused = {"db3"}
    backend.publish("orders", {"host": "db1"})
    orders = subscriber().subscribe("orders", Orders, pre_apply=lambda value: value.host not in refused)
    backend.publish("orders", {"host": 2})
    assert reaches(orders, State.STALE)
    assert isinstance(orders.error, UnmarshalError)
    backend.publish("orders", {"host": "db3"})
    assert eventually(lambda: isinstance(orders.error, RefusedError))
    assert orders.status.state is State.STALE
    assert orders.load() == Orders("db1")
    backend.publish("orders", {"host": "db4"})
    assert orders.wait_for(4, PATIENCE)
    assert reaches(orders, State.LIVE)
    assert orders.load() == Orders("db4")


def test_callbacks_are_told_of_the_paths_that_changed(backend: Any, subscriber: Callable[..., Any]) -> None:
    """A callback on a path is called when something at or below it changed, and not otherwise."""
    backend.publish("orders", {"db": {"host": "db1", "port": 1}, "level": "info"})
    orders = subscriber().subscribe("orders", dict)
    told: list[tuple[int | None, frozenset[str]]] = []
    orders.snapshot.on_path("db", lambda change: told.append((change.version, frozenset(change.paths))))
    backend.publish("orders", {"db": {"host": "db1", "port": 1}, "level": "debug"})
    backend.publish("orders", {"db": {"host": "db2", "port": 1}, "level": "debug"})
    backend.publish("orders", {"db": {"host": "db2", "port": 1}, "level": "info"})
    assert orders.wait_for(4, PATIENCE)
    assert told == [(3, frozenset({"db.host"}))]


def test_a_config_that_is_missing_is_an_error_or_is_waited_for(backend: Any, subscriber: Callable[..., Any]) -> None:
    """Required, it raises; not required, or with a default, it may be published later."""
    client = subscriber()
    with pytest.raises(NotFoundError):
        client.subscribe("nothing", dict)
    patient = client.subscribe("later", dict, required=False, timeout=0)
    preset = client.subscribe("preset", dict, default={"n": "default"})
    assert patient.load() is None
    assert preset.load() == {"n": "default"}
    assert patient.status.state is preset.status.state is State.INITIALIZING
    backend.publish("later", {"n": 1})
    backend.publish("preset", {"n": 1})
    assert patient.wait_for(1, PATIENCE)
    assert preset.wait_for(1, PATIENCE)
    assert preset.load() == {"n": 1}
    assert reaches(patient, State.LIVE)


def test_scopes_and_revocation_are_told_apart_from_outages(backend: Any, subscriber: Callable[..., Any]) -> None:
    """403 concerns one config, 401 all of them; the values stay."""
    backend.publish("orders", {"n": 1})
    credentials = backend.mint(scopes=("orders@*:read",))
    client = subscriber(credentials)
    orders = client.subscribe("orders", dict)
    with pytest.raises(ForbiddenError):
        client.subscribe("payments", dict)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    backend.revoke(credentials)
    assert reaches(orders, State.STOPPED)
    assert isinstance(orders.status.error, UnauthorizedError)
    assert orders.load() == {"n": 2}
    with pytest.raises(UnauthorizedError):
        subscriber(credentials).subscribe("orders", dict)


def test_without_streams_values_are_polled_for(backend: Any, subscriber: Callable[..., Any]) -> None:
    """While something on the way refuses streams the status is POLLING and changes still come; then LIVE again."""
    backend.publish("orders", {"n": 1})
    orders = subscriber(poll_interval=0.1).subscribe("orders", dict)
    assert reaches(orders, State.LIVE)
    backend.block_streams(True)
    backend.cut()
    assert reaches(orders, State.POLLING)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    backend.delete("orders")
    assert reaches(orders, State.STALE, "deleted")
    backend.block_streams(False)
    backend.publish("orders", {"n": 4})
    assert orders.wait_for(4, PATIENCE)
    assert reaches(orders, State.LIVE)


def test_a_subscription_that_joins_while_values_are_polled_for_has_its_value_at_once(
    backend: Any, subscriber: Callable[..., Any]
) -> None:
    """Neither the interval of polling nor a pause, both far longer than this test, is waited for."""
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 2})
    backend.block_streams(True)
    client = subscriber(poll_interval=600.0, retry_delay=600.0, max_retry_delay=600.0)
    orders = client.subscribe("orders", dict)
    assert reaches(orders, State.POLLING)
    payments = client.subscribe("payments", dict)
    assert (orders.load(), payments.load()) == ({"n": 1}, {"n": 2})
    assert reaches(payments, State.POLLING)


def test_behind_a_proxy_that_keeps_streams_back_values_are_polled_for(
    backend: Any, subscriber: Callable[..., Any], hindered: Callable[..., str]
) -> None:
    """The head of a stream passes and its body does not: the opening is given up after half a request's time."""
    backend.publish("orders", {"n": 1})
    client = subscriber(host=hindered(keeps_bodies=True), request_timeout=1.0, poll_interval=0.1)
    orders = client.subscribe("orders", dict)
    assert orders.load() == {"n": 1}
    assert reaches(orders, State.POLLING)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)


def test_a_service_that_knows_the_base_protocol_only_is_followed_too(
    backend: Any, subscriber: Callable[..., Any]
) -> None:
    """Each config has a base stream then; changes, cuts, deletion and return are as ever."""
    backend.set_base_only(True)
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    client = subscriber()
    orders, payments = client.subscribe("orders", dict), client.subscribe("payments", dict)
    assert (orders.load(), payments.load()) == ({"n": 1}, {"n": 1})
    for version in range(2, 6):
        backend.wait_for_watchers(2)
        backend.cut()
        backend.publish("orders", {"n": version})
        backend.publish("payments", {"n": version})
        assert orders.wait_for(version, PATIENCE)
        assert payments.wait_for(version, PATIENCE)
    payments.close()
    backend.delete("orders")
    assert reaches(orders, State.STALE, "deleted")
    assert backend.publish("orders", {"n": 7}) == 7
    assert orders.wait_for(7, PATIENCE)
    assert reaches(orders, State.LIVE)


def test_keys_are_reloaded_when_the_token_was_given_another_one(backend: Any, subscriber: Callable[..., Any]) -> None:
    """A rotation without overlap: the next change is sealed under a key that the client asks for, and arrives."""
    backend.publish("orders", {"n": 1})
    credentials = backend.mint()
    keys = [credentials.key]
    orders = subscriber(credentials, reload_keys=lambda: ",".join(keys)).subscribe("orders", dict)
    assert reaches(orders, State.LIVE)
    keys.insert(0, backend.rotate_key(credentials, overlap=False).key)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    assert reaches(orders, State.LIVE)


def test_a_rotation_with_overlap_is_not_noticed_by_who_holds_the_old_key(
    backend: Any, subscriber: Callable[..., Any]
) -> None:
    """No restart, no reload, no error: payloads come under the key that the client said it holds."""
    backend.publish("orders", {"n": 1})
    credentials = backend.mint()
    orders = subscriber(credentials).subscribe("orders", dict)
    assert reaches(orders, State.LIVE)
    backend.rotate_key(credentials)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    backend.cut()
    backend.publish("orders", {"n": 3})
    assert orders.wait_for(3, PATIENCE)
    assert orders.load() == {"n": 3}


def test_only_bound_payloads_are_asked_for_and_taken(backend: Any, subscriber: Callable[..., Any]) -> None:
    """``require_bound`` works with a service that seals format 2, and refuses one that cannot."""
    backend.publish("orders", {"n": 1})
    orders = subscriber(require_bound=True).subscribe("orders", dict)
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)


def test_a_restore_from_backup_is_followed(backend: Any, subscriber: Callable[..., Any]) -> None:
    """The restored state has lower versions and revisions, and a later epoch: it is the newest."""
    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    backup = backend.backup()
    client = subscriber()
    orders, payments = client.subscribe("orders", dict), client.subscribe("payments", dict)
    for number in (2, 3):
        backend.publish("orders", {"n": number})
    assert orders.wait_for(3, PATIENCE)
    backend.restore(backup)
    assert wait_for_value(orders.snapshot, {"n": 1})
    assert backend.publish("orders", {"n": "after"}) == 2
    assert wait_for_value(orders.snapshot, {"n": "after"})
    assert orders.snapshot.version == 2
    assert reaches(payments, State.LIVE)


def test_the_last_good_value_serves_a_start_while_the_service_is_down(
    backend: Any, subscriber: Callable[..., Any], tmp_path: Path
) -> None:
    """STALE from the disk at once, and LIVE with what was missed when the service is back; without it, an error."""
    on_disk = {"cache": True, "cache_directory": tmp_path / "cache"}
    backend.publish("orders", {"n": 1})
    first = subscriber(**on_disk)
    assert first.subscribe("orders", dict).load() == {"n": 1}
    first.close()
    backend.stop()
    with pytest.raises(ConnectionError):
        subscriber(**on_disk).subscribe("orders", dict, allow_stale=False, timeout=0.3)
    with pytest.raises(ConfigClientError):
        subscriber().subscribe("orders", dict, timeout=0.3)
    orders = subscriber(**on_disk).subscribe("orders", dict)
    assert orders.load() == {"n": 1}
    assert orders.status.state is State.STALE
    backend.start()
    backend.publish("orders", {"n": 2})
    assert orders.wait_for(2, PATIENCE)
    assert reaches(orders, State.LIVE)


@pytest.mark.parametrize("base_only", [False, True])
def test_what_may_not_be_read_any_more_is_erased_from_the_disk(
    backend: Any, subscriber: Callable[..., Any], tmp_path: Path, base_only: bool
) -> None:
    """A deleted config at the next start as well, and a revoked token at once, on both kinds of streams."""
    backend.set_base_only(base_only)
    directory = tmp_path / "cache"
    on_disk = {"cache": True, "cache_directory": directory}

    def kept() -> int:
        return len([path for path in directory.glob("*") if not path.name.startswith(".")])

    backend.publish("orders", {"n": 1})
    backend.publish("payments", {"n": 1})
    credentials = backend.mint()
    first = subscriber(credentials, **on_disk)
    first.subscribe("orders", dict)
    first.subscribe("payments", dict)
    assert eventually(lambda: kept() == 2)
    first.close()
    backend.delete("orders")
    second = subscriber(credentials, **on_disk)
    with pytest.raises(NotFoundError):
        second.subscribe("orders", dict)
    assert eventually(lambda: kept() == 1)
    payments = second.subscribe("payments", dict)
    backend.revoke(credentials)
    assert reaches(payments, State.STOPPED)
    assert eventually(lambda: kept() == 0)


def test_the_status_of_the_client_ends_with_what_it_was_of(backend: Any, subscriber: Callable[..., Any]) -> None:
    """STOPPED by a 401 that ends all; without subscriptions it is not LIVE; the metrics are told of every end."""
    backend.publish("orders", {"n": 1})
    credentials, metrics = backend.mint(), Connected()
    client = subscriber(credentials, metrics=metrics)
    assert client.status.state is State.INITIALIZING
    for told in ([True, False], [True, False, True, False]):
        orders = client.subscribe("orders", dict)
        assert eventually(lambda: client.status.state is State.LIVE)
        orders.close()
        assert eventually(lambda: client.status.state is State.INITIALIZING)
        assert metrics.told == told
    orders = client.subscribe("orders", dict)
    assert eventually(lambda: client.status.state is State.LIVE)
    backend.revoke(credentials)
    assert reaches(orders, State.STOPPED)
    assert eventually(lambda: client.status.state is State.STOPPED)
    assert isinstance(client.status.error, UnauthorizedError)
    assert eventually(lambda: metrics.told == [True, False] * 3)


def test_closing_the_client_tells_the_metrics_that_the_connection_is_down(
    backend: Any, subscriber: Callable[..., Any]
) -> None:
    """A gauge must not stay up for ever."""
    backend.publish("orders", {"n": 1})
    metrics = Connected()
    client = subscriber(metrics=metrics)
    client.subscribe("orders", dict)
    assert eventually(lambda: client.status.state is State.LIVE)
    client.close()
    assert metrics.told == [True, False]
    assert client.status.state is State.STOPPED


def test_closing_the_client_ends_a_pause(backend: Any, subscriber: Callable[..., Any]) -> None:
    """While it waits before the next attempt, for longer than this test would, close still returns."""
    backend.publish("orders", {"n": 1})
    client = subscriber(retry_delay=600.0, max_retry_delay=600.0, poll_interval=600.0)
    orders = client.subscribe("orders", dict)
    assert reaches(orders, State.LIVE)
    backend.stop()
    assert reaches(orders, State.STALE, "connection lost")
    client.close()
    assert orders.status.state is State.STOPPED


def test_closing_the_client_ends_its_subscriptions_and_its_stream(backend: Any, subscriber: Callable[..., Any]) -> None:
    """The values stay, nothing is open any more, and nothing can be subscribed to."""
    backend.publish("orders", {"n": 1})
    client = subscriber()
    orders = client.subscribe("orders", dict)
    backend.wait_for_watchers(1)
    client.close()
    backend.wait_for_watchers(0)
    assert orders.status.state is State.STOPPED
    assert client.status.state is State.STOPPED
    assert orders.load() == {"n": 1}
