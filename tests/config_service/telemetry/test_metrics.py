"""``/metrics``: who may read it, what it tells, that it is documented, and that no secret or name is in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from config_service.app import create_app
from config_service.delivery.subscription import End
from config_service.domain.errors import StoreFullError, UnauthenticatedError
from config_service.process import ServiceProcess

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[3]
CANARY = "canary-40c1"
SCRAPE = "scrape-" + "x" * 20
CONFIG = "/api/v1/service/configs/orders"
MANAGE = "/api/v1/manage/configs/orders"


def read(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    told: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            told.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return told


async def scrape(service: Any) -> dict[str, dict[tuple[str, ...], float]]:
    answer = await service.client(service.admin).get("/metrics")
    assert answer.status_code == 200
    return read(answer.text)


async def test_only_an_admin_or_the_secret_of_its_own_may_read_them(start: Callable[..., Any]) -> None:
    """By default nobody but holders of an admin token; a service token, a wrong secret and no secret are refused."""
    service = await start()
    reader = await service.mint("*@*:read,export,write")
    refused = {"401": ({}, {"Authorization": f"Bearer {SCRAPE}"}, {"Authorization": "Basic x"}), "403": ({},)}
    for headers in refused["401"]:
        assert (await service.client(headers=headers).get("/metrics")).status_code == 401
    assert (await service.client(reader).get("/metrics")).status_code == 403
    assert (await service.client(service.admin).get("/metrics")).status_code == 200
    by_bearer = service.client(headers={"Authorization": f"Bearer {service.admin.secret}"})
    assert (await by_bearer.get("/metrics")).status_code == 200


async def test_a_secret_of_its_own_reads_metrics_and_nothing_else(start: Callable[..., Any], settings: Any) -> None:
    """The one that CONFIG_SERVER_METRICS_TOKEN sets, as Prometheus sends it."""
    from config_service.settings import Settings

    token = Settings.load(master_key="5a" * 32, metrics_token=SCRAPE).metrics_token
    service = await start(metrics_token=token)
    http = service.client(headers={"Authorization": f"bearer {SCRAPE}"})
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert (await http.head("/metrics")).status_code == 200
    assert (await http.get(CONFIG)).status_code == 401
    assert (await service.client(headers={"X-Service-Token": SCRAPE}).get("/metrics")).status_code == 401
    wrong = service.client(headers={"Authorization": f"Bearer {SCRAPE[:-1]}"})
    assert (await wrong.get("/metrics")).status_code == 401
    openmetrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_requests_are_counted_by_route_and_status(service: Any) -> None:
    """By templates: whatever clients ask for, there are no more series than routes and statuses."""
    await service.publish("orders")
    http = service.client(service.admin)
    for path in (CONFIG, CONFIG, f"{CONFIG}?environment={CANARY}", f"/{CANARY}/a", f"/{CANARY}/b", f"/{CANARY}%2F"):
        await http.get(path)
    await service.client().get(CONFIG)
    told = await scrape(service)
    requests = told["config_service_requests_total"]
    route = "/api/v1/service/configs/{name}"
    assert requests["GET", route, "200"] == 2
    assert requests["GET", route, "404"] == 1
    assert requests["GET", route, "401"] == 1
    assert requests["GET", "unmatched", "404"] == 2
    assert requests["GET", "unmatched", "400"] == 1
    buckets = told["config_service_request_seconds_bucket"]
    assert buckets["+Inf", "GET", route] == told["config_service_request_seconds_count"]["GET", route] == 4
    assert told["config_service_request_seconds_sum"]["GET", route] > 0
    assert told["config_service_request_errors_total"] == {
        ("not_found",): 3,
        ("invalid_request",): 1,
        ("unauthenticated",): 1,
    }
    assert told["config_service_auth_failures_total"][()] == 1


async def test_streams_and_their_events_are_counted_by_kind(service: Any) -> None:
    """Open, handed out, waiting, cut: as the hub knows them."""
    await service.publish("orders")
    queue = service.app._hub._queue_frames
    base = service.operations.streams.subscribe(service.admin.token, "orders")
    other = service.operations.streams.subscribe(service.admin.token, "orders")
    for number in range(2):
        await service.publish("orders", b'{"n": %d}' % number)
    told = await scrape(service)
    assert told["config_service_streams"] == {("base",): 2, ("state",): 0}
    assert told["config_service_events_sent_total"] == {("base",): 4, ("state",): 0}
    assert told["config_service_queued_frames"][()] == 4
    assert told["config_service_queued_frames_max"][()] == 2
    other.end(End.READER_GONE)
    for number in range(queue):
        await service.publish("orders", b'{"m": %d}' % number)
    assert base.ended is End.OVERFLOW
    told = await scrape(service)
    assert told["config_service_streams"][("base",)] == 0
    assert told["config_service_streams_opened_total"][("base",)] == 2
    assert told["config_service_streams_cut_total"] == {("base",): 1, ("state",): 0}
    assert told["config_service_streams_ended_total"]["base", "reader_gone"] == 1
    assert told["config_service_streams_ended_total"]["base", "overflow"] == 1
    assert told["config_service_queued_frames_max"][()] == 0


async def test_changes_and_what_is_served_are_told(service: Any, epoch: str) -> None:
    """Revision, epoch, configs, tokens; changes by kind, and how soon after they were made they were served."""
    await service.publish("orders")
    await service.publish("others")
    await service.client(service.admin).delete(MANAGE)
    told = await scrape(service)
    assert told["config_service_revision"][()] == 4
    assert told["config_service_epoch_start_timestamp_seconds"][()] == int(epoch[:12], 16) / 1000
    assert told["config_service_configs"][()] == 1
    assert told["config_service_tokens"][()] == 1
    assert told["config_service_changes_applied_total"] == {("published",): 2, ("deleted",): 1, ("token_created",): 1}
    assert told["config_service_change_delay_seconds_count"][()] == 4
    assert told["config_service_feed_waiting_changes"][()] == 0
    assert told["config_service_ready"][()] == 1


async def test_the_store_is_measured(service: Any) -> None:
    """How long its calls took, and how many failed and how."""
    await service.publish("orders")
    http = service.client(service.admin)
    service.store.fail = StoreFullError("full")
    assert (await http.put(MANAGE, content=b'{"a": 1}')).status_code == 507
    service.store.fail = RuntimeError(CANARY)
    assert (await http.put(MANAGE, content=b'{"a": 1}')).status_code == 500
    told = await scrape(service)
    assert told["config_service_store_seconds_count"][("commit_version",)] == 1
    assert told["config_service_store_failures_total"] == {
        ("commit_version", "store_full"): 1,
        ("commit_version", "unexpected"): 1,
    }


async def test_seals_are_counted_once_per_key(service: Any) -> None:
    """The second reader gets what was sealed for the first."""
    await service.publish("orders")
    http = service.client(service.admin)
    for _ in range(3):
        await http.get(CONFIG)
    told = await scrape(service)
    assert told["config_service_payloads_sealed_total"] == {("1",): 1, ("2",): 0}
    assert told["config_service_payloads_reused_total"][()] == 2
    assert told["config_service_payload_cache_bytes"][()] > 0


async def test_no_secret_value_or_name_is_in_any_metric(service: Any) -> None:
    """Neither of documents and tokens, nor of whatever clients put into paths, headers and queries."""
    await service.publish(CANARY, b'{"a": "%s"}' % CANARY.encode(), environment=CANARY, label=CANARY)
    minted = await service.mint(f"{CANARY}@*:read")
    for who in (service.client(minted), service.client(headers={"X-Service-Token": CANARY, "X-Request-Id": CANARY})):
        for path in (f"/{CANARY}", f"/api/v1/service/configs/{CANARY}?environment={CANARY}&label={CANARY}"):
            await who.request(CANARY.upper(), path)
            await who.get(path)
    service.operations.streams.subscribe(minted.token, CANARY, environment=CANARY, label=CANARY)
    text = (await service.client(service.admin).get("/metrics")).text
    for secret in (CANARY, minted.secret[4:], minted.key.hex(), service.admin.secret[4:], "5a" * 32):
        assert secret not in text
        assert secret.upper() not in text


async def test_every_application_has_metrics_of_its_own(start: Callable[..., Any]) -> None:
    """Several in one process count for themselves."""
    first, second = await start(), await start()
    await first.client(first.admin).get("/api/v1/service/configs")
    key = ("GET", "/api/v1/service/configs", "200")
    assert key in (await scrape(first))["config_service_requests_total"]
    assert key not in (await scrape(second)).get("config_service_requests_total", {})


def documented() -> set[str]:
    """Every metric in the table of the manual."""
    section = (ROOT / "docs/OPERATIONS.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(config_service_[a-z_]+)", section, re.MULTILINE))


async def test_every_metric_is_documented(settings: Any, store: Any) -> None:
    """The table of docs/OPERATIONS.md and the registry name the same, the process's own ones apart."""
    names = create_app(settings, store).metrics.names()
    assert {name for name in names if name.startswith("config_service_")} == documented()
    assert "process_resident_memory_bytes" in names


async def test_workers_on_one_address_are_told_apart(service: Any) -> None:
    """A scrape reaches any of them: without a label their counters would jump back and forth."""
    service.app.metrics.worker = 2
    text = (await service.client(service.admin).get("/metrics")).text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) > 50
    assert all('worker="2"' in line for line in samples)


async def test_build_and_process_are_told(service: Any) -> None:
    """Which version runs, on which Python, and what it costs."""
    told = await scrape(service)
    ((python, version),) = told["config_service_build_info"]
    assert re.match(r"\d+\.\d+|unknown", version)
    assert python.startswith("3.")
    assert told["process_open_fds"][()] > 0


async def test_wrong_secrets_count_as_failed_authentications(start: Callable[..., Any]) -> None:
    """So that guessing here is slowed down like everywhere else."""
    service = await start()
    with pytest.raises(UnauthenticatedError):
        service.operations.authenticate(SCRAPE, "127.0.0.1")
    answer = await service.client(headers={"Authorization": f"Bearer {SCRAPE}"}).get("/metrics")
    assert answer.json()["error"]["code"] == "unauthenticated"
    assert len(service.operations._admission._failures) == 1


@pytest.mark.e2e
def test_a_real_server_counts_reads_that_it_answers_at_once_and_streams(tmp_path: Any) -> None:
    """Over a socket: the fastest way through the service is counted like every other one."""
    import httpx

    with ServiceProcess(tmp_path, {"METRICS_TOKEN": SCRAPE}) as process:
        operator = process.operator()
        operator.publish("orders", {"password": CANARY})
        access = operator.mint("app")
        headers = {"X-Service-Token": access.token}
        with httpx.Client(base_url=process.url, headers=headers, trust_env=False) as http:
            for _ in range(3):
                assert http.get(CONFIG).status_code == 200
            with http.stream("GET", f"{CONFIG}/watch") as stream:
                operator.publish("orders", {"password": CANARY, "n": 1})
                lines = stream.iter_lines()
                assert any("event: config_changed" in line for line in lines)
                text = httpx.get(
                    f"{process.url}/metrics", headers={"Authorization": f"Bearer {SCRAPE}"}, trust_env=False
                ).text
    told = read(text)
    assert told["config_service_requests_total"]["GET", "/api/v1/service/configs/{name}", "200"] == 3
    assert told["config_service_requests_total"]["GET", "/api/v1/service/configs/{name}/watch", "200"] == 1
    assert told["config_service_streams"][("base",)] == 1
    assert told["config_service_events_sent_total"][("base",)] == 1
    assert told["config_service_changes_applied_total"][("published",)] == 2
    assert told["config_service_store_seconds_count"][("commit_version",)] == 2
    assert CANARY not in text
    assert SCRAPE not in text
