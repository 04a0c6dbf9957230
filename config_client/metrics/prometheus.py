"""Metrics for Prometheus, by the extra ``prometheus``.

Labels are names of configs, names of error classes and the five states, so the number of series does not grow with
versions, values or time. In prometheus-client's multiprocess mode a gauge tells the worst of the processes that live:
the oldest version and the lost connection; a state tells how many are in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ..errors import ConfigClientError
from ..status import State, Status
from ._extras import require

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

DELAY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; a change takes milliseconds, and as long as the outage during an outage."""


class PrometheusMetrics:
    """Registers its metrics with ``registry`` (None: the default one), their names beginning with ``namespace``.

    Give one object to all clients of a process. Raises ConfigClientError when prometheus-client is missing, or when
    the registry has metrics of these names already.
    """

    def __init__(self, registry: CollectorRegistry | None = None, namespace: str = "config_client") -> None:
        require("prometheus_client", distribution="prometheus-client", extra="prometheus")
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram  # noqa: PLC0415 - an extra

        try:
            self._applied = Counter("applied", "Values put in place.", ["config"], namespace, registry=None)
            self._delay = Histogram(
                "apply_delay_seconds",
                "Seconds from the publication of a value to its being in place.",
                ["config"],
                namespace,
                registry=None,
                buckets=DELAY_BUCKETS,
            )
            self._version = Gauge(
                "version", "Version in place.", ["config"], namespace, registry=None, multiprocess_mode="livemin"
            )
            self._applied_at = Gauge(
                "last_applied_timestamp_seconds",
                "When the value in place was put there, in seconds since 1970.",
                ["config"],
                namespace,
                registry=None,
                multiprocess_mode="livemin",
            )
            self._failures = Counter(
                "failures", "Values refused, and configs not to be had.", ["config", "error"], namespace, registry=None
            )
            self._state = Gauge(
                "state",
                "1 for the state that the subscription is in.",
                ["config", "state"],
                namespace,
                registry=None,
                multiprocess_mode="livesum",
            )
            self._connected = Gauge(
                "connected",
                "1 while the stream of changes is open.",
                (),
                namespace,
                registry=None,
                multiprocess_mode="livemin",
            )
            _register(
                REGISTRY if registry is None else registry,
                (
                    self._applied,
                    self._delay,
                    self._version,
                    self._applied_at,
                    self._failures,
                    self._state,
                    self._connected,
                ),
            )
        except ValueError as error:
            fault = str(error)
        else:
            return
        raise ConfigClientError(
            f"PrometheusMetrics cannot use namespace {namespace!r}: {fault}; give one object to all clients, or each a "
            "namespace of its own"
        )

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        """Count a new value."""
        self._applied.labels(config_name).inc()
        self._applied_at.labels(config_name).set(time.time())
        if version is not None:
            self._version.labels(config_name).set(version)
        if delay is not None:
            self._delay.labels(config_name).observe(delay)

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        """Count a failure under the name of its class; its text goes nowhere."""
        self._failures.labels(config_name, type(error).__name__).inc()

    def status(self, config_name: str, status: Status) -> None:
        """Set the gauge of this state to 1 and those of the others to 0."""
        for state in State:
            self._state.labels(config_name, state.value).set(state is status.state)

    def connected(self, up: bool) -> None:
        """Set the gauge to 1 or 0."""
        self._connected.set(up)


def _register(registry: CollectorRegistry, collectors: Iterable[Collector]) -> None:
    """Register all of them or, raising ValueError, none."""
    done: list[Collector] = []
    try:
        for collector in collectors:
            registry.register(collector)
            done.append(collector)
    except ValueError:
        for collector in done:
            registry.unregister(collector)
        raise
