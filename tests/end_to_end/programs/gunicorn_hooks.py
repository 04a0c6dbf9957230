"""gunicorn's configuration file: what its hooks see of the application's subscription, in the master and in workers."""

from __future__ import annotations

import gunicorn_app
from lines import tell

bind = "127.0.0.1:0"
workers = 2
preload_app = True
accesslog = None


def when_ready(server: object) -> None:
    """Tell that the master listens."""
    tell("ready", address=str(server.LISTENERS[0]))  # type: ignore[attr-defined]


def post_fork(server: object, worker: object) -> None:
    """Tell what a worker holds before it has done anything of its own."""
    tell("forked", version=gunicorn_app.orders.snapshot.version)


def worker_exit(server: object, worker: object) -> None:
    """Close in the worker, as an application would."""
    gunicorn_app.client.close()
    tell("closed")


def on_exit(server: object) -> None:
    """Close in the master."""
    tell("master", version=gunicorn_app.orders.snapshot.version)
    gunicorn_app.client.close()
    tell("closed")
