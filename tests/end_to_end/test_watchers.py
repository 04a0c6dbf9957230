"""Who is watching what, on a real service: the SDK's subscription, a plain stream, and a reader that takes nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from config_client import ConfigClient
from config_service.process import Credentials, Operator, ServiceProcess


def watchers(service: ServiceProcess, *options: str) -> list[dict[str, Any]]:
    """What the command tells."""
    done = service.run_cli("watchers", "--url", service.url, "--token", service.admin_token, "--json", *options)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["watchers"]
    return rows


def test_the_watchers_of_a_real_service_are_told_with_their_versions(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """Kind, token, address; current when told, behind while a reader takes nothing, gone when closed."""
    operator.publish("orders", {"n": 1})
    operator.publish("others", {"n": 1})
    client = connect()
    subscription = client.subscribe("orders", dict)
    address = urlsplit(service.url)
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((address.hostname, address.port))
        body = json.dumps([{"name": "orders"}, {"name": "others"}]).encode()
        head = f"POST /api/v1/service/watch HTTP/1.1\r\nHost: s\r\nX-Service-Token: {access.token}\r\n"
        stuck.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert stuck.recv(1)
        version = 1
        deadline = time.monotonic() + 60
        while not (behind := watchers(service, "--behind")):
            # Until the kernel takes no more of it.
            assert time.monotonic() < deadline
            for _ in range(12):
                version = operator.publish("orders", {"n": version, "text": "x" * 400_000})
        (slow,) = behind
        (config,) = slow["configs"]
        assert (config["name"], config["running_version"]) == ("orders", version)
        assert 1 <= config["sent_version"] < version
        assert slow["queued_frames"] > 0
        assert subscription.snapshot.wait_for(version=version, timeout=60)
        current = [one for one in watchers(service, "--config", "orders") if not one["behind"]]
        assert [(one["token_id"], one["token_name"], one["address"], one["kind"]) for one in current] == [
            (access.token_id, "app", "127.0.0.1", "state")
        ]
        assert [one["sent_version"] for one in current[0]["configs"]] == [version]
        table = service.run_cli("watchers", "--url", service.url, "--token", service.admin_token).stdout.splitlines()
        assert table[0].split("\t")[:2] == ["TOKEN", "TOKEN NAME"]
        assert sorted(line.split("\t")[5] for line in table[1:]) == ["orders", "orders", "others"]
    client.close()
    deadline = time.monotonic() + 60
    while watchers(service):
        assert time.monotonic() < deadline


def test_only_an_admin_may_ask(service: ServiceProcess, access: Credentials) -> None:
    """Exit code 3, as for every refusal of rights."""
    done = service.run_cli("watchers", "--url", service.url, "--token", access.token)
    assert done.returncode == 3
