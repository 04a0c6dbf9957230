"""The whole service on the stores that are not SQL: started by its URL, killed, started again, read by the SDK."""

from __future__ import annotations

import secrets
import threading
import time
from pathlib import Path

import pytest
from pymongo import MongoClient

from config_client import ConfigClient, Options, UnauthorizedError
from config_service.process import ServiceProcess


def served(service: ServiceProcess, name: str) -> object:
    """Return what an SDK client of its own gets."""
    access = service.operator().mint(f"app-{secrets.token_hex(4)}")
    with ConfigClient(Options(host=service.url, service_token=access.token, encryption_key=access.key)) as client:
        return client.get_raw(name)


def live(service: ServiceProcess) -> None:
    """Publish and roll back; kill; everything is there, and the next change follows."""
    with service:
        operator = service.operator()
        for number in (1, 2):
            assert operator.publish("orders", {"number": number}, environment="prod") == number
            operator.publish("orders", {"number": number})
        operator.roll_back("orders", 1)
        service.kill()
        service.start()
        assert served(service, "orders") == {"number": 1}
        assert operator.publish("orders", {"number": 4}) == 4
        assert served(service, "orders") == {"number": 4}
        assert len(operator.history("orders")) == 4


def test_a_service_on_plain_files(tmp_path: Path) -> None:
    """``init`` and ``serve`` by ``file:///…``; a second process is refused with what to use instead."""
    service = ServiceProcess(tmp_path, {"STORE_URL": f"file://{tmp_path}/store"})
    live(service)
    with service:
        second = service.run_cli("init")
        assert second.returncode == 8
        assert "plain files serve one process" in second.stderr
        assert "PostgreSQL" in second.stderr
    values = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b'"name": "orders"' in values
    assert b'"number"' not in values


@pytest.mark.long
def test_a_service_on_mongodb(tmp_path: Path, mongodb_url: str) -> None:
    """``init`` and ``serve`` by ``mongodb://…``, with nothing on the disk of the service."""
    live(ServiceProcess(tmp_path, {"STORE_URL": mongodb_url}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_two_services_on_one_mongodb(tmp_path: Path, mongodb_url: str) -> None:
    """What one publishes, a watcher of the other hears; what one revokes, the other refuses."""
    with (
        ServiceProcess(tmp_path, {"STORE_URL": mongodb_url}) as first,
        ServiceProcess(tmp_path, replica_of=first) as second,
    ):
        operator = first.operator()
        operator.publish("orders", {"number": 1})
        access = operator.mint("app")
        options = Options(host=second.url, service_token=access.token, encryption_key=access.key)
        with ConfigClient(options) as client:
            subscription = client.subscribe("orders", dict)
            heard = threading.Event()
            subscription.snapshot.on_change(lambda change: heard.set() if change.new == {"number": 2} else None)
            operator.publish("orders", {"number": 2})
            assert heard.wait(60) or subscription.snapshot.load() == {"number": 2}
            assert second.operator().publish("orders", {"number": 3}) == 3
            assert len(operator.history("orders")) == 3
            operator.revoke(access.token_id)
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.get_raw("orders")
                except UnauthorizedError:
                    break
                assert time.monotonic() < deadline


@pytest.mark.long
def test_a_store_moves_from_plain_files_to_mongodb(tmp_path: Path, mongodb_url: str) -> None:
    """After a rotation of its keys, and with a log that can be verified before and after."""

    def done(*command: str) -> str:
        ended = service.run_cli(*command)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    with ServiceProcess(tmp_path, {"STORE_URL": f"file://{tmp_path}/store"}) as service:
        operator = service.operator()
        for number in (1, 2):
            operator.publish("orders", {"number": number})
        access = operator.mint("app")
        reached = ("--url", service.url, "--token", service.admin_token)
        done("keys", "rotate", *reached)
        assert "0 sealed anew" not in done("keys", "reseal", *reached)
        assert "sound" in done("audit", "verify", *reached)
        done("backup", str(tmp_path / "store.backup"), *reached)
    done("restore", str(tmp_path / "store.backup"), "--store-url", mongodb_url)
    assert "sound" in done("audit", "verify", "--store-url", mongodb_url)
    moved = ServiceProcess(tmp_path, {"STORE_URL": mongodb_url}, replica_of=service)
    with moved:
        options = Options(host=moved.url, service_token=access.token, encryption_key=access.key)
        with ConfigClient(options) as client:
            assert client.get_raw("orders") == {"number": 2}
        assert moved.operator().publish("orders", {"number": 3}) == 3
    with MongoClient[dict[str, object]](mongodb_url) as mongo:
        assert mongo.get_default_database()["log"].count_documents({}) > 1
