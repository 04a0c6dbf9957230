"""What the client does without: modules that a start needs not, work that httpx would do twice, circles in memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Final

import httpx
import pytest

from config_client import Change, Snapshot, client, protocol, types
from config_client._bodies import put_away
from config_client._clients import OwnClients
from config_client._interrupt import Interrupt

HOST: Final = "http://127.0.0.1:1"
START: Final = """
import sys
from config_client import ConfigClient, Options
ConfigClient(Options(host="http://127.0.0.1:1", service_token="t", encryption_key="00" * 32)).close()
print(*sorted(sys.modules))
"""
NOT_AT_START: Final = ("_session", "_states", "_steps", "aio", "cache", "decode", "snapshot", "status", "types")


@pytest.fixture
def own() -> Iterator[OwnClients]:
    """The clients that a transport owns, for one host."""
    clients = OwnClients([httpx.URL(HOST)], Interrupt(), 7.0)
    yield clients
    clients.close()


@pytest.mark.parametrize("cookie", [False, True])
@pytest.mark.parametrize("headers", [{}, {"X-Service-Token": "t", "accept": "a/b"}, {"Accept-Encoding": "identity"}])
def test_a_request_is_the_one_that_httpx_would_build(own: OwnClients, headers: dict[str, str], cookie: bool) -> None:
    """It is put together without httpx's merging, and shows the same on the wire: also cookies of a load balancer."""
    stock, url = own.client(0), f"{HOST}/api?environment=a%20b"
    if cookie:
        stock.cookies.set("route", "1")
    quick, usual = own.request(0, url, headers), stock.build_request("GET", url, headers=headers, timeout=7.0)
    assert (quick.method, quick.url, quick.extensions) == (usual.method, usual.url, usual.extensions)
    assert sorted(quick.headers.multi_items()) == sorted(usual.headers.multi_items())
    assert quick.read() == usual.read() == b""
    assert ("cookie" in quick.headers) is cookie


def test_requests_do_not_share_what_one_may_change(own: OwnClients) -> None:
    """The read timeout of a stream is set on its request, and stays there."""
    first = own.request(0, HOST, {})
    first.extensions["timeout"] = {"read": 60.0}
    first.headers["X-Other"] = "1"
    second = own.request(0, HOST, {})
    assert second.extensions["timeout"] == httpx.Timeout(7.0).as_dict()
    assert "X-Other" not in second.headers


def test_a_response_that_is_put_away_leaves_nothing_to_the_collector() -> None:
    """A stream that is opened anew for every subscription would else leave its connections in memory."""

    class Body(httpx.SyncByteStream):
        closed = False

        def __iter__(self) -> Iterator[bytes]:
            yield b"data"

        def close(self) -> None:
            type(self).closed = True

    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Body()))) as stock:
        gc.collect()
        gc.disable()
        try:
            response = stock.send(stock.build_request("GET", HOST), stream=True)
            held = weakref.ref(response.stream)
            put_away(response)
            assert Body.closed
            assert held() is None
        finally:
            gc.enable()


@pytest.mark.integration
def test_a_start_loads_nothing_that_only_watches_need() -> None:
    """Each module takes its part of a millisecond at every start of every program."""
    done = subprocess.run([sys.executable, "-c", START], check=True, capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "config_client.client" in loaded
    assert not loaded & {f"config_client.{name}" for name in NOT_AT_START}


def test_what_the_client_module_does_not_need_may_be_had_from_it() -> None:
    """Applications import these names from there; others it does not have."""
    assert (client.Snapshot, client.Format, client.ConfigInfo) == (Snapshot, types.Format, types.ConfigInfo)
    assert protocol.Standing.RUNNING.value == "running"
    for module in (client, protocol):
        assert all(hasattr(module, name) for name in module.__all__)
        assert not hasattr(module, "no_such_name")


def test_a_snapshot_that_has_told_everything_holds_no_queue() -> None:
    """An empty one would take more than the rest of the snapshot, for each of hundreds of configs."""
    snapshot: Snapshot[int] = Snapshot()
    told: list[Change[int]] = []
    snapshot.store(1)
    assert snapshot._pending is None
    snapshot.on_change(told.append)
    snapshot.store(2)
    assert [(change.old, change.new) for change in told] == [(1, 2)]
    assert snapshot._pending is None
