"""Metrics: what the two implementations record, in the libraries that they are made for."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest

from config_client.errors import ConfigClientError, DecryptionError, UnmarshalError
from config_client.metrics import Metrics, OpenTelemetryMetrics, PrometheusMetrics
from config_client.status import State, Status

CANARY = "s3cr3t-canary"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def tell(metrics: Metrics) -> None:
    """Tell of a life: connecting, two values of one config, failures, and states."""
    metrics.connected(True)
    metrics.applied("orders", 3, 0.02)
    metrics.applied("orders", 4, 0.2)
    metrics.applied("billing", None, None)
    metrics.failed("orders", UnmarshalError(CANARY))
    metrics.failed("orders", UnmarshalError(CANARY))
    metrics.failed("orders", DecryptionError(CANARY))
    metrics.status("orders", Status(State.LIVE, NOW))
    metrics.status("orders", Status(State.STALE, NOW, CANARY, UnmarshalError(CANARY)))
    metrics.status("billing", Status(State.LIVE, NOW))


# --- Prometheus


def read(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return the value of one series."""
    return registry.get_sample_value(name, labels)


def test_prometheus_counts_values_and_failures_by_config() -> None:
    """Counters and the histogram grow, the version is the newest one, and unknown ones are left out."""
    registry = CollectorRegistry()
    tell(PrometheusMetrics(registry))
    assert read(registry, "config_client_applied_total", config="orders") == 2
    assert read(registry, "config_client_applied_total", config="billing") == 1
    assert read(registry, "config_client_version", config="orders") == 4
    assert read(registry, "config_client_version", config="billing") is None
    assert read(registry, "config_client_apply_delay_seconds_count", config="orders") == 2
    assert read(registry, "config_client_apply_delay_seconds_sum", config="orders") == pytest.approx(0.22)
    assert read(registry, "config_client_apply_delay_seconds_bucket", config="orders", le="0.025") == 1
    assert read(registry, "config_client_apply_delay_seconds_count", config="billing") is None
    assert read(registry, "config_client_failures_total", config="orders", error="UnmarshalError") == 2
    assert read(registry, "config_client_failures_total", config="orders", error="DecryptionError") == 1
    applied_at = read(registry, "config_client_last_applied_timestamp_seconds", config="orders")
    assert applied_at is not None
    assert applied_at > NOW.timestamp() - 10 * 365 * 86_400


def test_prometheus_shows_one_state_of_each_config() -> None:
    """Exactly the present one is 1, and every other is there as 0, so that a query finds it."""
    registry = CollectorRegistry()
    tell(PrometheusMetrics(registry))
    for config, present in (("orders", State.STALE), ("billing", State.LIVE)):
        shown = {state: read(registry, "config_client_state", config=config, state=state.value) for state in State}
        assert shown == {state: float(state is present) for state in State}


def test_prometheus_shows_whether_the_stream_is_open() -> None:
    """1 and 0, and 0 before anything was told."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    for told, shown in ((None, 0), (True, 1), (False, 0)):
        if told is not None:
            metrics.connected(told)
        assert read(registry, "config_client_connected") == shown


def test_prometheus_carries_no_text_of_an_error_or_status() -> None:
    """Names of configs, error classes and states only; one series per config however many values it had."""
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry)
    tell(metrics)
    before = len(generate_latest(registry).splitlines())
    for version in range(100):
        metrics.applied("orders", version, version / 10)
    text = generate_latest(registry).decode()
    assert len(text.splitlines()) == before
    assert CANARY not in text


def test_prometheus_takes_a_namespace_and_by_default_the_default_registry() -> None:
    """Two sets of metrics may stand side by side under two namespaces."""
    metrics = PrometheusMetrics(namespace="shop_config")
    try:
        metrics.applied("orders", 1, None)
        assert REGISTRY.get_sample_value("shop_config_version", {"config": "orders"}) == 1
        registry = CollectorRegistry()
        PrometheusMetrics(registry, namespace="one").connected(True)
        PrometheusMetrics(registry, namespace="two")
        assert (read(registry, "one_connected"), read(registry, "two_connected")) == (1, 0)
    finally:
        for collector in vars(metrics).values():
            REGISTRY.unregister(collector)


def test_prometheus_metrics_that_exist_already_are_refused_as_a_whole() -> None:
    """The error says to share one object; of the second set nothing stays registered."""
    registry = CollectorRegistry()
    Counter("config_client_failures", "Somebody else's.", registry=registry)
    with pytest.raises(ConfigClientError, match="give one object to all clients, or each a namespace of its own"):
        PrometheusMetrics(registry)
    assert [family.name for family in registry.collect()] == ["config_client_failures"]
    PrometheusMetrics(registry, namespace="other").applied("orders", 1, None)
    with pytest.raises(ConfigClientError, match="cannot use namespace 'other'"):
        PrometheusMetrics(registry, namespace="other")
    assert read(registry, "other_version", config="orders") == 1


@pytest.mark.integration
def test_prometheus_metrics_work_in_multiprocess_mode(tmp_path: Path) -> None:
    """As gunicorn's workers are measured: counters add up, a gauge tells of the processes that live."""
    code = """
        import os
        from datetime import datetime, timezone
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector
        from config_client.metrics import PrometheusMetrics
        from config_client.status import State, Status

        metrics = PrometheusMetrics()
        metrics.applied("orders", 7, 0.1)
        metrics.status("orders", Status(State.LIVE, datetime.now(timezone.utc)))
        metrics.connected(True)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        assert registry.get_sample_value("config_client_applied_total", {"config": "orders"}) == 1
        assert registry.get_sample_value("config_client_version", {"config": "orders"}) == 7
        assert registry.get_sample_value("config_client_state", {"config": "orders", "state": "live"}) == 1
        assert registry.get_sample_value("config_client_connected") == 1
    """
    run(code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))


# --- OpenTelemetry


Series = dict[tuple[str, tuple[tuple[str, object], ...]], HistogramDataPoint | NumberDataPoint]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """What an exporter would read."""
    return InMemoryMetricReader()


@pytest.fixture
def telemetry(reader: InMemoryMetricReader) -> Iterator[OpenTelemetryMetrics]:
    """Metrics on a meter of the test's own."""
    provider = MeterProvider([reader])
    yield OpenTelemetryMetrics(provider.get_meter("test"))
    provider.shutdown()


def collect(reader: InMemoryMetricReader) -> Series:
    """Return every data point by the name of its metric and its attributes."""
    data = reader.get_metrics_data()
    assert data is not None
    return {
        (metric.name, tuple(sorted((point.attributes or {}).items()))): point  # type: ignore[misc]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def point(series: Series, name: str, **attributes: str) -> object:
    """Return the value of one series, or of a histogram its count and sum; None when it is not there."""
    key = (name, tuple(sorted((each.replace("_", "."), value) for each, value in attributes.items())))
    found = series.get(key)
    return (found.count, found.sum) if isinstance(found, HistogramDataPoint) else found and found.value


def test_opentelemetry_counts_values_and_failures_by_config(
    telemetry: OpenTelemetryMetrics, reader: InMemoryMetricReader
) -> None:
    """The same facts as for Prometheus, under the names that OpenTelemetry's conventions ask for."""
    tell(telemetry)
    series = collect(reader)
    assert point(series, "config_client.applied", config_name="orders") == 2
    assert point(series, "config_client.applied", config_name="billing") == 1
    assert point(series, "config_client.version", config_name="orders") == 4
    assert point(series, "config_client.version", config_name="billing") is None
    assert point(series, "config_client.apply.delay", config_name="orders") == (2, pytest.approx(0.22))
    assert point(series, "config_client.apply.delay", config_name="billing") is None
    assert point(series, "config_client.failures", config_name="orders", error_type="UnmarshalError") == 2
    assert point(series, "config_client.failures", config_name="orders", error_type="DecryptionError") == 1
    assert point(series, "config_client.connected") == 1
    states = {
        state: point(series, "config_client.state", config_name="orders", config_state=state.value) for state in State
    }
    assert states == {state: int(state is State.STALE) for state in State}
    assert CANARY not in str(series)


def test_opentelemetry_shows_whether_the_stream_is_open(
    telemetry: OpenTelemetryMetrics, reader: InMemoryMetricReader
) -> None:
    """The last thing told counts."""
    telemetry.connected(True)
    telemetry.connected(False)
    assert point(collect(reader), "config_client.connected") == 0


def test_opentelemetry_without_an_sdk_does_nothing() -> None:
    """A library may be instrumented in a program that exports nothing."""
    tell(OpenTelemetryMetrics())


# --- without the extras


def run(code: str, **environment: str) -> None:
    """Run a program in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("PrometheusMetrics", "prometheus_client", "prometheus"),
        ("OpenTelemetryMetrics", "opentelemetry.metrics", "opentelemetry"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, library: str, extra: str) -> None:
    """The error is ours and says what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigClientError) as caught:
        {"PrometheusMetrics": PrometheusMetrics, "OpenTelemetryMetrics": OpenTelemetryMetrics}[name]()
    assert f"pip install 'python-config-client[{extra}]'" in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.integration
def test_no_library_of_metrics_is_loaded_before_it_is_used() -> None:
    """Neither by the package nor by its metrics; and a name that is not there is an ordinary mistake."""
    run(
        """
        import sys
        import config_client, config_client.metrics
        from config_client.metrics import Metrics
        assert not [name for name in sys.modules if name.split(".")[0] in ("prometheus_client", "opentelemetry")]
        from config_client.metrics import OpenTelemetryMetrics, PrometheusMetrics
        assert not [name for name in sys.modules if name.split(".")[0] in ("prometheus_client", "opentelemetry")]
        try:
            config_client.metrics.Missing
        except AttributeError:
            pass
        else:
            raise SystemExit("no AttributeError")
        """
    )
