"""Watches over real sockets, on a service that speaks the base protocol only and misbehaves on request."""

from __future__ import annotations

import logging
import queue
import socket
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stopwatch import stopwatch

from config_client import (
    Change,
    ConfigClient,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    ForbiddenError,
    GetOptions,
    InvalidResponseError,
    NotFoundError,
    Snapshot,
    State,
    UnauthorizedError,
    UnmarshalError,
)
from config_client import _driver as driver_module
from config_client import _threads as threads_module
from config_client._sse import SSEDecoder
from config_client._streams import MAX_HEARTBEAT
from config_client._threads import THREAD_NAME
from config_client.transport import Transport

pytestmark = pytest.mark.integration

SECRET = "secret-in-an-application-error"
CLOSE_SECONDS = 0.1
TRIES = 5


@dataclass
class Orders:
    level: int
    name: str = "none"


def kinds(errors: list[Exception]) -> list[type[Exception]]:
    return [type(error) for error in errors]


# Values


def test_the_snapshot_fills_at_once_and_follows_every_change(foreign: Any, background: Callable[..., Any]) -> None:
    """The first value is there before any change, and each publish swaps it."""
    foreign.publish("orders", {"level": 1})
    watching = background(target=Orders)
    assert watching.snapshot.wait_for(timeout=60)
    assert watching.snapshot.load() == Orders(1)
    assert watching.snapshot.version is None
    assert foreign.wait_for_answers("config", 2)
    seen: list[Orders] = []
    done = threading.Event()

    def note(change: Change[Orders]) -> None:
        seen.append(change.new)
        if change.new.level == 3:
            done.set()

    watching.snapshot.on_change(note)
    foreign.publish("orders", {"level": 2})
    assert foreign.wait_for_answers("config", 3)
    foreign.publish("orders", {"level": 3})
    assert done.wait(60)
    assert seen[-1] == Orders(3)


@pytest.mark.parametrize("how", ["cut", "end"])
@pytest.mark.parametrize("etags", [False, True])
def test_a_change_during_reconnect_arrives_without_a_new_publish(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any], how: str, etags: bool
) -> None:
    """The stream ends, the config changes in silence, and the fetch after the reconnect finds it."""
    foreign.etags = etags
    foreign.publish("orders", {"level": 1})
    heard = told()
    watching = background(on_change=heard)
    assert foreign.wait_for_streams(1)
    assert foreign.wait_for_answers("config", 2)
    foreign.publish("orders", {"level": 2}, tell=False)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    getattr(foreign, how)()
    assert swapped.wait(60)
    assert watching.snapshot.load() == {"level": 2}
    assert heard.wait_for(1)
    assert heard.items == ["orders"]


def test_a_value_stays_current_where_no_stream_gets_through(foreign: Any, background: Callable[..., Any]) -> None:
    """A proxy that answers every stream with a page of its own still leaves polling."""
    foreign.always("watch", foreign.answer(200, b"<html>", Content_Type="text/html"))
    foreign.publish("orders", {"level": 1})
    watching = background()
    assert watching.snapshot.wait_for(timeout=60)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"level": 2})
    assert swapped.wait(60)
    assert watching.snapshot.load() == {"level": 2}


def test_what_cannot_be_used_keeps_the_value_and_is_reported_once(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """Unfit, unparsable and undecipherable documents each give one typed error; the next good one is taken."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    watching = background(target=Orders, on_error=errors)
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.wait_for_answers("config", 2)
    for count, bad in enumerate([b'{"level": "high"}', b"not json", b'["list"]'], 1):
        foreign.publish("orders", bad)
        assert errors.wait_for(count)
    foreign.always("config", foreign.answer(200, b"x" * 100))
    foreign.tell("orders")
    assert errors.wait_for(4)
    foreign.tell("orders")
    fetches = foreign.count("config")
    foreign.tell("orders")
    assert foreign.wait_for_answers("config", fetches + 1)
    foreign.always("config", None)
    assert watching.snapshot.load() == Orders(1)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"level": 2})
    assert swapped.wait(60)
    assert watching.snapshot.load() == Orders(2)
    assert kinds(errors.items) == [UnmarshalError, UnmarshalError, UnmarshalError, DecryptionError]


def test_a_deleted_config_keeps_its_value_and_may_return(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """The deletion is reported once, also when the stream is refused with 404 meanwhile; the watch goes on."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    watching = background(on_error=errors)
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.wait_for_answers("config", 2)
    foreign.delete("orders")
    assert errors.wait_for(1)
    foreign.always("watch", foreign.answer(404))
    foreign.end()
    streams = foreign.count("watch")
    assert foreign.wait_for("watch", streams + 3)
    assert watching.snapshot.load() == {"level": 1}
    foreign.always("watch", None)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"level": 2})
    assert swapped.wait(60)
    assert watching.snapshot.load() == {"level": 2}
    assert [error for error in errors.items if isinstance(error, NotFoundError)] == errors.items[:1]
    assert watching.raised == []


def test_a_service_that_is_down_at_the_start_is_waited_for(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """5xx and resets before the first value are reported and retried far beyond retry_count."""
    errors = told()
    foreign.always("config", foreign.answer(503))
    foreign.publish("orders", {"level": 1})
    watching = background(on_error=errors, retry_count=0)
    assert errors.wait_for(5)
    foreign.always("config", lambda connection, request: connection.reset())
    assert errors.wait_for(10)
    foreign.always("config", None)
    assert watching.snapshot.wait_for(timeout=60)
    assert set(kinds(errors.items)) == {ConnectionError}


# Refusals


@pytest.mark.parametrize(("status", "error"), [(401, UnauthorizedError), (403, ForbiddenError), (404, NotFoundError)])
@pytest.mark.parametrize("events", [False, True])
def test_a_refusal_is_reported_and_raised_after_one_attempt(
    foreign: Any,
    background: Callable[..., Any],
    told: Callable[[], Any],
    status: int,
    error: type[ConfigClientError],
    events: bool,
) -> None:
    """401, 403 and a first 404 go to on_error and are raised, instead of being retried or returning in silence."""
    errors = told()
    for route in ("config", "watch"):
        foreign.always(route, foreign.answer(status))
    watching = background(on_error=errors, callback=(lambda event: None) if events else None)
    assert watching.ended()
    assert kinds(watching.raised) == [error]
    assert errors.items == watching.raised
    assert foreign.count("config") == 1
    assert foreign.count("watch") == int(events)


def test_a_watch_that_has_ended_leaves_no_thread_behind(
    foreign: Any, background: Callable[..., Any], eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    """On base streams too: neither the config's own thread nor the shared one goes on for nobody."""
    watching = background("missing")
    assert watching.ended()
    assert kinds(watching.raised) == [NotFoundError]
    assert eventually(lambda: not any(THREAD_NAME in thread.name for thread in threading.enumerate()))


@pytest.mark.parametrize("base_only", [False, True])
def test_a_defect_of_the_watch_is_told_and_not_a_silent_freeze(
    config_server: Any,
    base_only: bool,
    eventually: Callable[[Callable[[], bool]], bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The subscription stops with an error that names the kind of defect, and the next one starts anew."""
    config_server.base_only = base_only
    config_server.publish("orders", {"level": 1})
    with ConfigClient(config_server.options()) as client:
        orders = client.subscribe("orders", Orders)
        config_server.wait_for_watchers(1)
        # A base stream is followed by one more look, which must not be the one that finds the change.
        path = "/api/v1/service/configs/orders"
        assert not base_only or eventually(lambda: [one.path for one in config_server.requests].count(path) >= 2)
        with monkeypatch.context() as patch:
            place = "watching.ValueWatch._refresh" if base_only else "_state_watch.StateWatch._take"
            patch.setattr(f"config_client.{place}", lambda *_: 1 / 0)
            config_server.publish("orders", {"level": 2})
            assert eventually(lambda: orders.closed)
        assert "ZeroDivisionError" in str(orders.status.error)
        assert orders.load() == Orders(1)
        assert client.subscribe("orders", Orders).load() == Orders(2)


@pytest.mark.parametrize("base_only", [False, True])
def test_a_callback_that_exits_ends_the_watch_and_says_so(
    config_server: Any, base_only: bool, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    """SystemExit on the watching thread is no silent freeze, and the next subscription starts anew."""
    config_server.base_only = base_only
    config_server.publish("orders", {"level": 1})
    with ConfigClient(config_server.options()) as client:
        orders = client.subscribe("orders", Orders)
        orders.on_change(lambda change: sys.exit(SECRET))
        config_server.publish("orders", {"level": 2})
        assert eventually(lambda: orders.closed)
        assert isinstance(orders.status.error, ConfigClientError)
        assert "SystemExit" in str(orders.status.error)
        assert SECRET not in str(orders.status.error)
        again = client.subscribe("orders", Orders)
        assert again.load() == Orders(2)
        config_server.publish("orders", {"level": 3})
        assert again.wait_for(3, 10)


def test_the_stream_of_events_comes_from_whichever_host_is_there(
    config_server: Any, eventually: Callable[[Callable[[], bool]], bool]
) -> None:
    """The first is down for good, and the second is away for a while: what happens afterwards is told."""
    config_server.publish("orders", {"level": 1})
    told: queue.Queue[int] = queue.Queue()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        hosts = f"http://127.0.0.1:{holder.getsockname()[1]},{config_server.url}"
        errors: list[Exception] = []
        with ConfigClient(config_server.options(host=hosts, on_error=errors.append)) as client:
            run = threading.Thread(target=client.watch, args=("orders", lambda event: told.put(event.version)))
            run.start()
            try:
                for version in (2, 3):
                    config_server.wait_for_watchers(1, 60)
                    config_server.publish("orders", {"level": version})
                    assert told.get(timeout=60) == version
                    errors.clear()
                    config_server.stop()
                    # The end of the stream, and that it cannot be opened again.
                    assert eventually(lambda: len(errors) >= 2)
                    config_server.start()
            finally:
                client.close()
                run.join(60)


def test_without_a_thread_to_be_had_subscribing_fails_and_works_later(
    config_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the system is a typed error, and what it left behind is in nobody's way."""
    config_server.publish("orders", {"level": 1})

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ConfigClient(config_server.options()) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ConfigClientError, match="no thread can be started"):
                client.subscribe("missing", Orders)
        assert client.subscribe("orders", Orders).load() == Orders(1)


def test_a_subscription_that_is_closed_while_it_gets_a_base_stream_leaves_no_thread(
    config_server: Any, eventually: Callable[[Callable[[], bool]], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed at the worst moment, when its thread is made and not yet known; the other one goes on."""
    config_server.base_only = True
    for name in ("orders", "billing"):
        config_server.publish(name, {"level": 1})
    made = threading.Event()

    class Closing(threads_module._Delegate):
        def __init__(self, session: Any, transport: Any, keeper: Any) -> None:
            super().__init__(session, transport, keeper)
            if keeper.track.name == "orders":
                session.remove(keeper)
                made.set()

    with ConfigClient(config_server.options()) as client:
        billing = client.subscribe("billing", Orders)
        monkeypatch.setattr(threads_module, "_Delegate", Closing)
        orders = client.subscribe("orders", Orders, timeout=0, required=False)
        assert made.wait(60)
        assert eventually(lambda: not any("orders" in thread.name for thread in threading.enumerate()))
        assert eventually(lambda: [each.name for each in client._shared()._delegates] == ["billing"])
        assert orders.closed
        config_server.publish("billing", {"level": 2})
        assert billing.wait_for(2, 10)


def test_a_filter_that_forbids_streams_ends_nothing_while_the_configs_may_be_read(
    config_server: Any, eventually: Callable[[Callable[[], bool]], bool], tmp_path: Path
) -> None:
    """403 to the stream alone: values come by polling, and the disk keeps the last one."""
    config_server.publish("orders", {"level": 1})
    options = config_server.options(cache=True, cache_directory=tmp_path, poll_interval=0.1)
    with ConfigClient(options) as client:
        orders = client.subscribe("orders", Orders)
        config_server.fail(403, for_="watch")
        config_server.cut()
        assert eventually(lambda: orders.status.state is State.POLLING)
        config_server.publish("orders", {"level": 2})
        assert orders.wait_for(2, 10)
        cached = client._shared().cached(orders._keeper.track)
        assert cached is not None
        assert client.subscribe("orders", Orders).load() == Orders(2)


def test_a_token_that_may_not_read_its_config_any_more_is_told_by_the_config(
    config_server: Any, eventually: Callable[[Callable[[], bool]], bool], tmp_path: Path
) -> None:
    """403 to the stream and to the config: it ends there, the value stays, and the disk keeps nothing."""
    config_server.publish("orders", {"level": 1})
    with ConfigClient(config_server.options(cache=True, cache_directory=tmp_path)) as client:
        orders = client.subscribe("orders", Orders)
        config_server.fail(403)
        config_server.cut()
        assert eventually(lambda: orders.closed)
        assert isinstance(orders.status.error, ForbiddenError)
        assert orders.load() == Orders(1)
        assert client._shared().cached(orders._keeper.track) is None


def test_a_token_that_is_revoked_ends_the_watch(foreign: Any, background: Callable[..., Any]) -> None:
    """A 401 on reconnecting is final, and the value stays."""
    foreign.publish("orders", {"level": 1})
    watching = background()
    assert foreign.wait_for_answers("config", 2)
    foreign.always("watch", foreign.answer(401))
    foreign.cut()
    assert watching.ended()
    assert kinds(watching.raised) == [UnauthorizedError]
    assert watching.snapshot.load() == {"level": 1}


def test_which_errors_are_final_is_an_option(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """Who waits for a config to be created leaves NotFoundError out of the final errors."""
    errors = told()
    watching = background(on_error=errors, final_errors=(UnauthorizedError,))
    assert errors.wait_for(2)
    foreign.publish("orders", {"level": 1})
    assert watching.snapshot.wait_for(timeout=60)
    assert set(kinds(errors.items)) == {NotFoundError}


def test_204_instead_of_a_stream_ends_the_watch(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """The standard's way to say: do not reconnect."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    foreign.always("watch", foreign.answer(204))
    watching = background(on_error=errors)
    assert watching.ended()
    assert kinds(watching.raised) == [InvalidResponseError]
    assert errors.items == watching.raised
    assert foreign.count("watch") == 1
    assert watching.snapshot.load() == {"level": 1}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": 200, "body": b"{}", "Content_Type": "application/json"}, InvalidResponseError),
        ({"status": 200, "body": b"data: x\n\n"}, InvalidResponseError),
        ({"status": 400}, InvalidResponseError),
        ({"status": 201, "Content_Type": "text/event-stream"}, InvalidResponseError),
        ({"status": 302, "Location": "http://127.0.0.2:1/elsewhere"}, InvalidResponseError),
        ({"status": 503, "body": b"busy"}, ConnectionError),
        ({"status": 599}, ConnectionError),
    ],
)
def test_a_stream_that_is_none_is_reported_and_tried_again(
    foreign: Any,
    background: Callable[..., Any],
    told: Callable[[], Any],
    answer: dict[str, Any],
    error: type[ConfigClientError],
) -> None:
    """A wrong type, another status or a redirect elsewhere is an error of the moment: the next stream is followed."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    foreign.script("watch", foreign.answer(**answer), foreign.answer(**answer))
    watching = background(on_error=errors)
    assert foreign.wait_for_streams(1)
    assert kinds(errors.items) == [error, error]
    foreign.publish("orders", {"level": 2})
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.count("watch") == 3


def test_a_redirect_within_the_service_is_followed(foreign: Any, background: Callable[..., Any]) -> None:
    """A stream that moved to another path of the same origin is read there."""
    foreign.publish("orders", {"level": 1})
    moved = f"{foreign.url}/api/v1/service/configs/moved/watch"
    foreign.script("watch", foreign.answer(307, Location=moved))
    background()
    assert foreign.wait_for_streams(1)
    assert foreign.streams[0].name == "moved"


def test_garbage_instead_of_http_is_a_network_error(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """What is no HTTP, and a body that stops being chunked, are reported as ConnectionError, without their bytes."""
    errors = told()
    foreign.publish("orders", {"level": 1})

    def no_http(connection: Any, request: Any) -> None:
        connection.send(b"\x00\x01" + SECRET.encode() + b"\r\n\r\n")
        connection.reset()

    def no_chunks(connection: Any, request: Any) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.send(head.encode() + SECRET.encode() + b"\r\n\r\n")
        connection.stall()

    foreign.script("watch", no_http, no_chunks)
    background(on_error=errors)
    assert foreign.wait_for_streams(1)
    assert kinds(errors.items) == [ConnectionError, ConnectionError]
    assert not any(SECRET in f"{error!r}{error.__cause__!r}" for error in errors.items)


# Events


def test_every_change_is_told_with_its_fields(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """The callback gets a ConfigChangeEvent per change, and on_change the name; unknown JSON fields do no harm."""
    changes, heard = told(), told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes, on_change=heard)
    assert foreign.wait_for_answers("config", 2)
    versions = [foreign.publish("orders", {"level": number}, extra={"a": [1]}) for number in range(3)]
    assert changes.wait_for(3)
    assert [event.version for event in changes.items] == versions
    event = changes.items[0]
    assert (event.config_name, event.changed_by, event.timestamp.isoformat()) == (
        "orders",
        7,
        "2026-11-20T10:00:00+00:00",
    )
    assert heard.wait_for(3)
    assert heard.items == ["orders"] * 3


def test_a_change_between_streams_is_told_after_the_reconnect(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """A foreign service replays nothing; the fetch shows that something changed, and what follows is live again."""
    changes = told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes)
    assert foreign.wait_for_answers("config", 2)
    foreign.publish("orders", {"level": 2}, tell=False)
    foreign.cut()
    assert changes.wait_for(1)
    assert (changes.items[0].config_name, changes.items[0].version) == ("orders", 0)
    version = foreign.publish("orders", {"level": 3})
    assert changes.wait_for(2)
    assert changes.items[1].version == version


def test_the_environment_and_label_asked_for_are_in_every_request(foreign: Any, background: Callable[..., Any]) -> None:
    """Fetches and streams name the same key; empty fields are left out of the query."""
    foreign.publish("orders", {"level": 1})
    background(opts=GetOptions(environment="prod", label="feature/x"))
    assert foreign.wait_for_answers("config", 2)
    asked = [request for request in foreign.requests if request.route != "states"]
    assert [request.query for request in asked] == [{"environment": "prod", "label": "feature/x"}] * 3
    assert [request.route for request in asked] == ["config", "watch", "config"]
    assert asked[1].headers["accept"] == "text/event-stream"


def test_two_watches_of_one_client_are_independent(
    foreign: Any, background: Callable[..., Any], connect: Callable[..., ConfigClient], told: Callable[[], Any]
) -> None:
    """Each has its stream; one that ends for good leaves the other running, and close ends both."""
    client = connect()
    changes = told()
    foreign.publish("orders", {"level": 1})
    values = background(client=client)
    events = background(client=client, callback=changes)
    missing = background("missing", client=client)
    assert missing.ended()
    assert kinds(missing.raised) == [NotFoundError]
    assert foreign.wait_for_answers("config", 5)
    swapped = threading.Event()
    values.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"level": 2})
    assert swapped.wait(60)
    assert changes.wait_for(1)
    client.close()
    assert values.ended()
    assert events.ended()
    assert values.raised == events.raised == []


def test_more_watches_than_a_pool_has_connections_share_a_client(
    foreign: Any, connect: Callable[..., ConfigClient], background: Callable[..., Any]
) -> None:
    """The usual pool ends at 100 connections; the 101st watch gets its stream and its value all the same."""
    client = connect(request_timeout=30.0)
    foreign.publish("orders", {"level": 1})
    watchings = [background(client=client) for _ in range(101)]
    assert foreign.wait_for_streams(101)
    assert all(watching.snapshot.wait_for(timeout=60) for watching in watchings)
    client.close()
    assert all(watching.ended() for watching in watchings)


def test_a_service_that_tells_its_history_is_resumed_and_asked_for_no_less(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """The position of the opening goes into the fetch after it and, as Last-Event-ID, into the next opening."""
    epoch = "0192f3a4b5c6d7e8f9a0b1c2"
    foreign.publish("orders", {"level": 1})
    foreign.stream_headers = {"X-Config-Epoch": epoch, "X-Config-Revision": "5"}
    changes = told()
    background()
    assert foreign.wait_for_answers("config", 2)
    assert foreign.requests[-1].headers["x-config-min-revision"] == f"{epoch}-5"
    foreign.requests.clear()
    background(callback=changes)
    assert foreign.wait_for_streams(2)
    foreign.publish("orders", {"level": 2}, environment="default", label="main", epoch=epoch, revision=6)
    assert changes.wait_for(1)
    foreign.stream_headers["X-Config-Replay"] = "exact"
    foreign.requests.clear()
    foreign.streams[1].put("reset")
    assert foreign.wait_for_streams(3)
    foreign.publish("orders", {"level": 3}, environment="default", label="main", epoch=epoch, revision=7)
    assert changes.wait_for(2)
    reopened = next(request for request in foreign.requests if request.route == "watch")
    assert reopened.headers["last-event-id"] == f"{epoch}-6"
    assert [event.revision for event in changes.items] == [6, 7]


# The bytes of a stream


CHANGE = '{"config_name":"orders","version":%d,"changed_by":1,"timestamp":"2026-11-20T10:00:00Z"}'


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_line_ends_and_chunks_do_not_matter(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any], end: str, size: int
) -> None:
    """LF, CRLF and CR end lines alike, an event is told when its blank line is there, however it is cut."""
    changes = told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes)
    assert foreign.wait_for_answers("config", 2)
    lines = ["\ufeff: hello", "id: 1", "event: config_changed", f"data: {CHANGE % 5}", ""]
    raw = end.join([*lines, ""]).encode()
    for start in range(0, len(raw), size):
        foreign.send(raw[start : start + size])
    assert changes.wait_for(1)
    assert changes.items[0].version == 5


def test_heartbeats_after_an_event_are_no_events(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """Comments, blank lines, blocks without data, bare data and other types are told to nobody."""
    changes, heard, errors = told(), told(), told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes, on_change=heard, on_error=errors)
    assert foreign.wait_for_answers("config", 2)
    foreign.send(f"id: 1\nevent: config_changed\ndata: {CHANGE % 1}\n\n".encode())
    for noise in (
        ":\n\n",
        ":\n",
        "\n\n\n",
        "id: 2\n\n",
        "event: config_changed\n\n",
        "event: config_changed\ndata:\n\n",
    ):
        foreign.send(noise.encode())
    foreign.send(b"event: other\ndata: {}\n\ndata: {}\n\nretry: 9999999\n\nunknown\n\n")
    foreign.send(f"event: config_changed\ndata: {CHANGE % 2}\n\n".encode())
    assert changes.wait_for(2)
    assert [event.version for event in changes.items] == [1, 2]
    assert heard.wait_for(2)
    assert heard.items == ["orders"] * 2
    assert errors.items == []


def test_an_unreadable_event_is_reported_and_made_up_for_by_a_fetch(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """An event that is no JSON or lacks fields is an InvalidResponseError without its text; the value is fetched."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    watching = background(on_error=errors)
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.wait_for_answers("config", 2)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"level": 2}, tell=False)
    foreign.send(f"event: config_changed\ndata: {SECRET}\n\n".encode())
    assert swapped.wait(60)
    assert kinds(errors.items) == [InvalidResponseError]
    assert SECRET not in repr(errors.items[0])


def test_events_before_one_that_is_too_large_are_told(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came in the same chunk; the stream is given up after them, and the watch goes on with another."""
    monkeypatch.setattr(driver_module, "SSEDecoder", lambda: SSEDecoder(max_event_bytes=1000))
    changes, errors = told(), told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes, on_error=errors)
    assert foreign.wait_for_answers("config", 2)
    event = f"event: config_changed\ndata: {CHANGE % 1}\n\n"
    foreign.send(f"{event}{event}data: {'x' * 2000}".encode())
    assert changes.wait_for(2)
    assert errors.wait_for(1)
    assert kinds(errors.items) == [InvalidResponseError]
    assert foreign.wait_for_streams(2)


def test_an_event_that_the_end_of_the_stream_cut_is_not_told(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """Half an event is discarded, and does not run into the first one of the next stream."""
    changes = told()
    foreign.publish("orders", {"level": 1})
    background(callback=changes)
    assert foreign.wait_for_answers("config", 2)
    foreign.send(f"event: config_changed\ndata: {CHANGE % 1}".encode())
    foreign.end()
    assert foreign.wait_for_streams(2)
    assert foreign.wait_for_answers("config", 3)
    foreign.send(f"event: config_changed\ndata: {CHANGE % 2}\n\n".encode())
    assert changes.wait_for(1)
    assert [event.version for event in changes.items] == [2]


# Heartbeats


@pytest.mark.parametrize("announced", [False, True])
def test_a_silent_stream_is_dead_after_three_heartbeats(
    foreign: Any,
    background: Callable[..., Any],
    told: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    announced: bool,
) -> None:
    """A connection that is open but says nothing is given up, by the option or by what the service announces."""
    errors = told()
    patience: list[float] = []
    read_on = Transport.chunks

    def chunks(transport: Transport, response: Any, *, read_timeout: float) -> Iterator[bytes]:
        patience.append(read_timeout)
        return read_on(transport, response, read_timeout=read_timeout)

    monkeypatch.setattr(Transport, "chunks", chunks)
    foreign.publish("orders", {"level": 1})
    if announced:
        foreign.stream_headers = {"X-Config-Heartbeat": "0.05"}
    background(on_error=errors, heartbeat_interval=60.0 if announced else 0.05)
    assert foreign.wait_for_streams(3)
    assert patience == [pytest.approx(0.15)] * len(patience)
    assert errors.wait_for(2)
    assert set(kinds(errors.items)) == {ConnectionError}
    assert "ReadTimeout" in str(errors.items[0])


def test_heartbeats_keep_a_quiet_stream_alive_beyond_the_request_timeout(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """The read timeout of a stream is that of its heartbeats, not the one of a request."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    watching = background(on_error=errors, heartbeat_interval=20.0, request_timeout=1.5)
    assert foreign.wait_for_answers("config", 2)
    pause = threading.Event()
    for _ in range(12):
        pause.wait(0.15)
        foreign.send(b":\n\n")
    assert len(foreign.streams) == 1
    assert errors.items == []
    assert watching.thread.is_alive()


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "0", "-5", str(MAX_HEARTBEAT + 1), "1e999"])
def test_an_announcement_that_makes_no_sense_is_not_believed(
    foreign: Any, background: Callable[..., Any], text: str
) -> None:
    """The option stands in for a heartbeat that is no number of seconds, not positive, or absurdly rare."""
    foreign.stream_headers = {"X-Config-Heartbeat": text}
    foreign.publish("orders", {"level": 1})
    background(heartbeat_interval=0.05)
    assert foreign.wait_for_streams(2)


# Callbacks


def test_callbacks_that_raise_stop_nothing_and_are_logged_by_type_only(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever callback, on_change and on_error raise, the loop goes on and the text stays out of the log."""
    caplog.set_level(logging.DEBUG)
    seen, failed = told(), told()

    def callback(event: Any) -> None:
        seen(event)
        raise RuntimeError(SECRET)

    def on_error(error: Exception) -> None:
        failed(error)
        raise KeyError(SECRET)

    def on_change(name: str) -> None:
        raise ZeroDivisionError(SECRET)

    foreign.publish("orders", {"level": 1})
    watching = background(callback=callback, on_error=on_error, on_change=on_change)
    assert foreign.wait_for_answers("config", 2)
    foreign.publish("orders", {"level": 2})
    assert seen.wait_for(1)
    foreign.cut()
    assert failed.wait_for(1)
    assert foreign.wait_for_answers("config", 3)
    foreign.publish("orders", {"level": 3})
    assert seen.wait_for(3)
    watching.client.close()
    assert watching.ended()
    assert watching.raised == []
    text = caplog.text
    assert SECRET not in text
    assert all(kind in text for kind in ("RuntimeError", "KeyError", "ZeroDivisionError"))
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("config_client"))


def test_a_callback_may_use_the_client(
    foreign: Any, background: Callable[..., Any], connect: Callable[..., ConfigClient], told: Callable[[], Any]
) -> None:
    """Fetching inside the callback is what applications do."""
    client = connect()
    values = told()
    foreign.publish("orders", {"level": 1})
    background(client=client, callback=lambda event: values(client.get_raw(event.config_name)))
    assert foreign.wait_for_answers("config", 2)
    foreign.publish("orders", {"level": 2})
    assert values.wait_for(1)
    assert values.items == [{"level": 2}]


# Closing


def reading(foreign: Any, start: Callable[..., Any]) -> Any:
    """A watch that is blocked in the read of an idle stream."""
    streams, fetches = len(foreign.streams), foreign.count("config")
    watching = start()
    assert foreign.wait_for_streams(streams + 1)
    assert foreign.wait_for_answers("config", fetches + 2)
    return watching


def mid_event(foreign: Any, start: Callable[..., Any]) -> Any:
    """A watch that has read half an event."""
    watching = reading(foreign, start)
    foreign.send(b"event: config_changed\ndata: {")
    return watching


def pausing(foreign: Any, start: Callable[..., Any]) -> Any:
    """A watch in its backoff."""
    foreign.always("watch", foreign.answer(503))
    erred = threading.Event()
    watching = start(on_error=lambda error: erred.set(), retry_delay=30.0, max_retry_delay=30.0)
    assert erred.wait(60)
    return watching


def opening(foreign: Any, start: Callable[..., Any]) -> Any:
    """A watch that waits for the head of the stream."""
    requests = foreign.count("watch")
    foreign.always("watch", lambda connection, request: connection.stall())
    watching = start()
    assert foreign.wait_for("watch", requests + 1)
    return watching


def fetching(foreign: Any, start: Callable[..., Any]) -> Any:
    """A watch that waits for the config itself."""
    requests = foreign.count("config")
    foreign.always("config", lambda connection, request: connection.stall())
    watching = start()
    assert foreign.wait_for("config", requests + 1)
    return watching


@pytest.mark.parametrize("state", [reading, mid_event, pausing, opening, fetching])
def test_close_returns_at_once_and_ends_the_watch(
    foreign: Any,
    background: Callable[..., Any],
    sockets: Callable[[], int],
    eventually: Callable[[Callable[[], bool]], bool],
    state: Callable[..., Any],
) -> None:
    """Within 100 ms from every wait; the watch returns instead of raising, and leaves neither thread nor socket."""
    foreign.publish("orders", {"level": 1})
    threads = threading.active_count()
    before = sockets()
    took = []
    for _ in range(TRIES):
        watching = state(foreign, background)
        with stopwatch() as closing:
            watching.client.close()
        took.append(closing.seconds)
        watching.client.close()
        assert watching.ended()
        assert watching.raised == []
    assert statistics.median(took) < CLOSE_SECONDS, took
    assert foreign.wait_until_left()
    assert eventually(lambda: sockets() <= before)
    assert eventually(lambda: threading.active_count() <= threads)


@pytest.fixture
def full_listener() -> Iterator[int]:
    """Listen on a port whose queue is full, so that connecting to it hangs."""
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_close_ends_connecting(
    full_listener: int,
    background: Callable[..., Any],
    sockets: Callable[[], int],
    eventually: Callable[[Callable[[], bool]], bool],
) -> None:
    """A watch that waits for the handshake of TCP ends within 100 ms too."""
    took = []
    before = sockets()
    for _ in range(TRIES):
        watching = background(host=f"http://127.0.0.1:{full_listener}")
        assert eventually(lambda: sockets() > before)
        with stopwatch() as closing:
            watching.client.close()
        took.append(closing.seconds)
        assert watching.ended()
        assert watching.raised == []
        assert eventually(lambda: sockets() == before)
    assert statistics.median(took) < CLOSE_SECONDS, took


@pytest.mark.parametrize("events", [False, True])
def test_close_within_a_callback_ends_the_watch(
    foreign: Any, background: Callable[..., Any], connect: Callable[..., ConfigClient], events: bool
) -> None:
    """An application that has seen enough closes the client where it is told: the watch returns from there."""
    client = connect()
    took: list[float] = []
    closed = threading.Event()

    def enough(_: object) -> None:
        with stopwatch() as closing:
            client.close()
        took.append(closing.seconds)
        closed.set()

    foreign.publish("orders", {"level": 1})
    watching = background(client=client, callback=enough if events else None)
    assert foreign.wait_for_answers("config", 2)
    watching.snapshot.on_change(enough)
    foreign.publish("orders", {"level": 2})
    assert watching.ended()
    assert watching.raised == []
    assert closed.wait(60)
    assert len(took) == 1
    assert took[0] < CLOSE_SECONDS
    assert foreign.wait_until_left()


def test_close_does_not_wait_for_a_callback_that_takes_its_time(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """close returns although the application is still at work; the watch ends when it has finished."""
    entered, finish = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        entered.set()
        finish.wait(60)

    foreign.publish("orders", {"level": 1})
    watching = background(callback=slow)
    assert foreign.wait_for_answers("config", 2)
    foreign.publish("orders", {"level": 2})
    foreign.publish("orders", {"level": 3})
    assert entered.wait(60)
    with stopwatch() as closing:
        watching.client.close()
    assert watching.thread.is_alive()
    finish.set()
    assert watching.ended()
    assert watching.raised == []
    assert closing.seconds < 2 * CLOSE_SECONDS


def test_a_watch_on_a_closed_client_returns(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Without a request, and without an error: the loop is over before it began."""
    client = connect()
    client.close()
    client.watch("orders", lambda event: None)
    client.watch_and_decode("orders", dict, Snapshot())
    assert foreign.requests == []


def test_many_clients_leave_nothing_behind(
    foreign: Any,
    background: Callable[..., Any],
    sockets: Callable[[], int],
    eventually: Callable[[Callable[[], bool]], bool],
) -> None:
    """50 clients with a watch each, opened and closed: threads and sockets are where they were."""
    foreign.publish("orders", {"level": 1})
    threads = threading.active_count()
    before = sockets()
    for _ in range(5):
        running = [background() for _ in range(10)]
        for watching in running:
            assert watching.snapshot.wait_for(timeout=60)
        for watching in running:
            watching.client.close()
            assert watching.ended()
            assert watching.raised == []
    assert foreign.wait_until_left()
    assert eventually(lambda: threading.active_count() <= threads)
    assert eventually(lambda: sockets() <= before)


def test_an_interrupted_watch_closes_its_stream(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Ctrl-C in the middle of a callback leaves the watch with the stream closed, and the client usable."""
    client = connect()
    foreign.publish("orders", {"level": 1})

    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    publisher = threading.Thread(
        target=lambda: foreign.wait_for_answers("config", 2) and foreign.publish("orders", {"level": 2})
    )
    publisher.start()
    with pytest.raises(KeyboardInterrupt):
        client.watch("orders", interrupt)
    publisher.join()
    assert foreign.wait_until_left()
    assert client.get_raw("orders") == {"level": 2}


def test_a_driver_hangs_up_before_it_pauses(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """While a watch waits to try again it holds no stream."""
    errors = told()
    foreign.publish("orders", {"level": 1})
    background(on_error=errors, retry_delay=30.0, max_retry_delay=30.0)
    assert foreign.wait_for_answers("config", 2)
    foreign.always("config", foreign.answer(503))
    foreign.tell("orders")
    assert errors.wait_for(1)
    assert foreign.wait_until_left()
