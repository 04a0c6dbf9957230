"""Metrics for OpenTelemetry, by the extra ``opentelemetry``.

Attributes are names of configs, names of error classes and the five states, so the number of series does not grow with
versions, values or time. Needs the API only: where no SDK is set up, everything here does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ConfigClientError
from ..status import State, Status
from ._extras import require

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

DELAY_BOUNDARIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; a change takes milliseconds, and as long as the outage during an outage."""


class OpenTelemetryMetrics:
    """Makes its instruments with ``meter`` (None: the one called ``config_client`` of the global provider).

    Raises ConfigClientError when opentelemetry-api is missing.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        require("opentelemetry.metrics", distribution="opentelemetry-api", extra="opentelemetry")
        from opentelemetry.metrics import get_meter  # noqa: PLC0415 - an extra

        used = get_meter("config_client") if meter is None else meter
        self._applied = used.create_counter("config_client.applied", unit="{value}", description="Values put in place.")
        self._delay = used.create_histogram(
            "config_client.apply.delay",
            unit="s",
            description="From the publication of a value to its being in place.",
            explicit_bucket_boundaries_advisory=DELAY_BOUNDARIES,
        )
        self._version = used.create_gauge("config_client.version", unit="{version}", description="Version in place.")
        self._failures = used.create_counter(
            "config_client.failures", unit="{failure}", description="Values refused, and configs not to be had."
        )
        self._state = used.create_gauge(
            "config_client.state", unit="1", description="1 for the state that the subscription is in."
        )
        self._connected = used.create_gauge(
            "config_client.connected", unit="1", description="1 while the stream of changes is open."
        )

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        """Count a new value."""
        config = {"config.name": config_name}
        self._applied.add(1, config)
        if version is not None:
            self._version.set(version, config)
        if delay is not None:
            self._delay.record(delay, config)

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        """Count a failure under the name of its class; its text goes nowhere."""
        self._failures.add(1, {"config.name": config_name, "error.type": type(error).__name__})

    def status(self, config_name: str, status: Status) -> None:
        """Set the gauge of this state to 1 and those of the others to 0."""
        for state in State:
            self._state.set(int(state is status.state), {"config.name": config_name, "config.state": state.value})

    def connected(self, up: bool) -> None:
        """Set the gauge to 1 or 0."""
        self._connected.set(int(up))
