"""The metrics of one application, for Prometheus.

Knows prometheus-client and the tallies of the parts. What only grows was counted where it happened; what just is (open
streams, what they wait for, what is served) is looked at when somebody asks. Each application has a registry of its
own. Labels are templates of routes, codes, kinds: their number does not grow with configs, tokens, values or time.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..api.tally import RequestTally
from ..build import service_version
from ..delivery.feed import Feed
from ..delivery.hub import Hub
from ..delivery.running import Running
from ..delivery.sealed import Payloads
from ..delivery.subscription import Beat, End
from ..domain.records import LogEntry
from ..security.tokens import TokenRegistry
from .measured_store import StoreTally
from .tallies import Distribution, Distributions

_PREFIX: Final = "config_service"
_KIND: Final[Mapping[Beat, str]] = {Beat.BASE: "base", Beat.STATE: "state"}
_DELAY_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
"""Seconds: a change that this process commits is served a few milliseconds later, one of another replica soon after."""


class ChangeTally:
    """Changes that were applied to what is served, by kind, and how long after they were made."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.applied: Final[Counter[str]] = Counter()
        self.delay: Final = Distribution(_DELAY_BOUNDS)

    def __call__(self, entry: LogEntry) -> None:
        """Take note of a change that has just been applied."""
        self.applied[entry.kind.value] += 1
        self.delay.add(max(0.0, (self._clock() - entry.timestamp).total_seconds()))


class Metrics(Collector):
    """Everything that this application measures of itself."""

    def __init__(
        self,
        *,
        requests: RequestTally,
        store: StoreTally,
        changes: ChangeTally,
        hub: Hub,
        feed: Feed,
        running: Running,
        payloads: Payloads,
        tokens: TokenRegistry,
        log_age: Callable[[], float],
        reasons: Callable[[], Mapping[str, str]],
        clock: Callable[[], datetime],
    ) -> None:
        self._requests = requests
        self._store = store
        self._changes = changes
        self._hub = hub
        self._feed = feed
        self._running = running
        self._payloads = payloads
        self._tokens = tokens
        self._log_age = log_age
        self._reasons = reasons
        self._clock = clock
        self._began = time.time()
        self.worker: int | None = None
        """Which of several processes on one address this is: a scrape reaches one, so they are told apart."""
        self._process = ProcessCollector(registry=None)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics in the format that the header ``Accept`` prefers, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def names(self) -> set[str]:
        """Return the name of every metric, as it stands in the text format."""
        return {sample for metric in self._registry.collect() for sample in _told_names(metric)}

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        for metric in chain(
            self._of_requests(),
            self._of_streams(),
            self._of_changes(),
            self._of_the_store(),
            self._of_the_process(),
            self._process.collect(),
        ):
            yield metric if self.worker is None else _labelled(metric, {"worker": str(self.worker)})

    def _of_requests(self) -> Iterator[Metric]:
        labels = ["method", "route", "status"]
        seconds: Distributions[tuple[str, str, int]] = self._requests.seconds
        counts = CounterMetricFamily(f"{_PREFIX}_requests", "Requests answered.", labels=labels)
        times = HistogramMetricFamily(
            f"{_PREFIX}_request_seconds", "Seconds until an answer was complete.", labels=["method", "route"]
        )
        for (method, route, status), one in seconds.by_key.items():
            counts.add_metric([method, route, str(status)], one.count)
        for (method, route), merged in _by_route(seconds).items():
            times.add_metric([method, route], merged.cumulated(), merged.total)
        yield counts
        yield times
        errors = CounterMetricFamily(f"{_PREFIX}_request_errors", "Requests refused or failed.", labels=["code"])
        for code, count in self._requests.errors.items():
            errors.add_metric([code], count)
        yield errors
        yield _counter("auth_failures", "Requests without a valid token.", self._requests.auth_failures)

    def _of_streams(self) -> Iterator[Metric]:
        tally = self._hub.tally
        opened = Counter(stream.interest.beat for stream in self._hub)
        streams = GaugeMetricFamily(f"{_PREFIX}_streams", "Streams that are open.", labels=["kind"])
        begun = CounterMetricFamily(f"{_PREFIX}_streams_opened", "Streams that were opened.", labels=["kind"])
        events = CounterMetricFamily(f"{_PREFIX}_events_sent", "Changes handed to streams.", labels=["kind"])
        cut = CounterMetricFamily(f"{_PREFIX}_streams_cut", "Streams of readers that were too slow.", labels=["kind"])
        ended = CounterMetricFamily(f"{_PREFIX}_streams_ended", "Streams that have ended.", labels=["kind", "reason"])
        for beat, kind in _KIND.items():
            streams.add_metric([kind], opened[beat])
            begun.add_metric([kind], tally.opened[beat])
            events.add_metric([kind], tally.events[beat])
            cut.add_metric([kind], tally.ended[beat, End.OVERFLOW])
            for why in End:
                ended.add_metric([kind, why.name.lower()], tally.ended[beat, why])
        yield from (streams, begun, events, cut, ended)
        queued = [stream.queued for stream in self._hub]
        yield _gauge("queued_frames", "Frames that wait for readers.", sum(queued))
        yield _gauge("queued_frames_max", "Frames that wait for the slowest reader.", max(queued, default=0))

    def _of_changes(self) -> Iterator[Metric]:
        applied = CounterMetricFamily(f"{_PREFIX}_changes_applied", "Changes that came into effect.", labels=["kind"])
        for change, count in self._changes.applied.items():
            applied.add_metric([change], count)
        yield applied
        delay = HistogramMetricFamily(
            f"{_PREFIX}_change_delay_seconds", "Seconds from a change to its being served by this process."
        )
        delay.add_metric([], self._changes.delay.cumulated(), self._changes.delay.total)
        yield delay
        here = self._feed.position
        yield _gauge("revision", "Newest revision that is served.", here.revision)
        began = int(here.epoch[:12], 16) / 1000 if here.epoch else 0.0
        yield _gauge("epoch_start_timestamp_seconds", "When this history began, in seconds since 1970.", began)
        yield _gauge("log_age_seconds", "Seconds since the log held nothing that is not served.", self._log_age())
        yield _gauge("feed_waiting_changes", "Changes that wait for one before them.", self._feed.waiting)
        yield _gauge("configs", "Configs that are served.", self._running.count())
        now = self._clock()
        yield _gauge("tokens", "Tokens that are valid.", sum(token.valid_at(now) for token in self._tokens))

    def _of_the_store(self) -> Iterator[Metric]:
        seconds = HistogramMetricFamily(
            f"{_PREFIX}_store_seconds", "Seconds that calls of the store took.", labels=["call"]
        )
        for call, one in self._store.seconds.by_key.items():
            seconds.add_metric([call], one.cumulated(), one.total)
        yield seconds
        failures = CounterMetricFamily(
            f"{_PREFIX}_store_failures", "Calls of the store that failed.", labels=["call", "code"]
        )
        for (call, code), count in self._store.failures.items():
            failures.add_metric([call, code], count)
        yield failures

    def _of_the_process(self) -> Iterator[Metric]:
        made = self._payloads.made
        sealed = CounterMetricFamily(f"{_PREFIX}_payloads_sealed", "Payloads that were sealed.", labels=["format"])
        for encoding in ("1", "2"):
            sealed.add_metric([encoding], made[encoding])
        yield sealed
        yield _counter("payloads_reused", "Payloads and events that were made already.", self._payloads.found)
        yield _gauge("payload_cache_bytes", "Bytes of payloads that are kept.", self._payloads.size)
        yield _counter("documents_opened", "Documents that were opened.", self._feed.documents_opened)
        yield _gauge("ready", "1 while configs are served.", int(not self._reasons()))
        yield _gauge("start_timestamp_seconds", "When the application was made, in seconds since 1970.", self._began)
        build = GaugeMetricFamily(f"{_PREFIX}_build_info", "1; which build this is.", labels=["version", "python"])
        build.add_metric([service_version(), platform.python_version()], 1)
        yield build


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)


def _by_route(seconds: Distributions[tuple[str, str, int]]) -> dict[tuple[str, str], Distribution]:
    """Return the distributions of routes, those of all statuses taken together: a bucket costs a series."""
    merged: dict[tuple[str, str], Distribution] = {}
    for (method, route, _), one in seconds.by_key.items():
        held = merged.get((method, route))
        merged[method, route] = one if held is None else held + one
    return merged


def _labelled(metric: Metric, labels: Mapping[str, str]) -> Metric:
    metric.samples = [sample._replace(labels={**sample.labels, **labels}) for sample in metric.samples]
    return metric


def _told_names(metric: Metric) -> Iterator[str]:
    yield f"{metric.name}_total" if metric.type == "counter" else metric.name
