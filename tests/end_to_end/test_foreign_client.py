"""Clients of other languages speak the wire protocol with their own HTTP, AES-GCM and line reading."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from config_service.process import Credentials, Operator, ServiceProcess

NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs Node.js 18 or later (Debian: apt-get install nodejs)")
def test_a_client_on_node_fetches_opens_and_follows(
    service: ServiceProcess, operator: Operator, access: Credentials
) -> None:
    """Node's standard library opens what the service seals, and hears of a publish, a rollback and a deletion."""
    operator.publish("orders", {"text": "größer als 👍"})
    program = Path(__file__).with_name("foreign_client.mjs")
    with subprocess.Popen(
        [str(NODE), str(program), service.url, access.token, access.key, "orders", "3"],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            started = json.loads(child.stdout.readline())
            assert started["config"] == {"text": "größer als 👍"}
            assert started["stream"].startswith("text/event-stream")
            operator.publish("orders", {"n": 2})
            published = json.loads(child.stdout.readline())
            operator.roll_back("orders", 1)
            rolled_back = json.loads(child.stdout.readline())
            operator.delete("orders")
            deleted = json.loads(child.stdout.readline())
            assert child.wait(60) == 0
        finally:
            child.kill()
    assert (published["event"]["version"], published["config"]) == (2, {"n": 2})
    assert (rolled_back["event"]["version"], rolled_back["config"]) == (3, {"text": "größer als 👍"})
    assert (deleted["event"]["deleted"], deleted["config"]) == (True, {"status": 404})
    assert set(published["event"]) >= {"config_name", "version", "changed_by", "timestamp"}
