"""What a client tells of its values, failures and states to whoever measures.

Knows names of configs and types of errors. Learns no value, token or key, so none can end up in a metric; and imports
no library of metrics: the two implementations are loaded when they are used.

    from config_client.metrics import PrometheusMetrics

    Options(host, token, key, metrics=PrometheusMetrics())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigClientError
from ..status import Status

if TYPE_CHECKING:
    from .opentelemetry import OpenTelemetryMetrics
    from .prometheus import PrometheusMetrics

__all__ = ["Metrics", "OpenTelemetryMetrics", "PrometheusMetrics"]


class Metrics(Protocol):
    """What ``Options(metrics=…)`` takes. Called on the watching thread or task, so every method must return at once.

    One object may serve several clients; configs of one name are told under that name, whatever their environment.
    What a method raises is logged by type and stops nothing.
    """

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        """Take note of a new value; ``delay``: seconds from its publication to the swap, None when that is unknown."""

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        """Take note of a value that was refused, or a config that could not be had; the old value stays."""

    def status(self, config_name: str, status: Status) -> None:
        """Take note of a subscription's new state."""

    def connected(self, up: bool) -> None:
        """Take note of whether the client's stream is open."""


def __getattr__(name: str) -> object:
    if name == "PrometheusMetrics":
        from .prometheus import PrometheusMetrics  # noqa: PLC0415 - loaded when it is used

        return PrometheusMetrics
    if name == "OpenTelemetryMetrics":
        from .opentelemetry import OpenTelemetryMetrics  # noqa: PLC0415 - loaded when it is used

        return OpenTelemetryMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
