"""A Celery worker with a prefork pool that subscribes once, before its pool is forked.

The broker is in memory, which works only within one process: so the process that sends the tasks is the worker's own.
Every line on standard input makes it send some. The children answer on standard output, since a result backend in
their memory would be theirs alone.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown
from lines import tell

from config_client import ConfigClient

TASKS = 8

client = ConfigClient.from_env()
orders = client.subscribe("orders", dict)
app = Celery("orders", broker="memory://", backend=None)
app.conf.update(
    broker_transport_options={"polling_interval": 0.01},
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def answer() -> None:
    """Tell what this child of the pool holds."""
    tell("answer", version=orders.snapshot.version, value=orders.load())
    # As long as one child is busy the next task goes to the other.
    time.sleep(0.02)


@worker_process_init.connect
def forked(**_: object) -> None:
    """Tell what a child holds before it has done anything of its own."""
    tell("forked", version=orders.snapshot.version)


@worker_process_shutdown.connect
def ends(**_: object) -> None:
    """Close in a child of the pool."""
    client.close()
    tell("closed")


def send() -> None:
    """Send tasks for every line, until there are no more."""
    # Not from sys.stdin: the children of the pool close theirs, whose lock this thread would hold at the fork.
    while lines := os.read(0, 4096):
        for _ in range(TASKS * lines.count(b"\n")):
            answer.apply_async()


if __name__ == "__main__":
    threading.Thread(target=send, daemon=True).start()
    worker = app.Worker(pool="prefork", concurrency=2, loglevel="WARNING", without_gossip=True, without_mingle=True)
    worker.start()
    tell("master", version=orders.snapshot.version)
    client.close()
    tell("closed")
    sys.exit(worker.exitcode)
