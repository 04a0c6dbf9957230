"""A WSGI application for ``gunicorn --preload``: subscribed once, in the master, and every worker answers from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from config_client import ConfigClient

client = ConfigClient.from_env()
orders = client.subscribe("orders", dict)


def app(environ: dict[str, object], start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
    """Answer with the process and what it holds."""
    body = json.dumps({"pid": os.getpid(), "version": orders.snapshot.version, "value": orders.load()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
