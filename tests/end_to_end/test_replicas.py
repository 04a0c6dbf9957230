"""Several real processes on one real PostgreSQL: what one commits, the watchers of all hear of, whatever fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psycopg
import pytest
from postgres import OwnServer, PostgresServer, sessions

from config_client import ConfigClient, Options, State
from config_service.process import Credentials, ServiceProcess

PATIENCE = 60.0
# So that what is seen within a second was not seen by a poll that happened to be due.
RARELY = {"POLL_INTERVAL": "30"}


def eventually(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once ``holds``; it is asked again and again, because other processes tell nobody."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def client_of(host: str, access: Credentials) -> ConfigClient:
    """Return a client that does not wait for long."""
    return ConfigClient(
        Options(
            host=host,
            service_token=access.token,
            encryption_key=access.key,
            retry_delay=0.02,
            max_retry_delay=0.2,
        )
    )


class Replicas:
    """Services on one store, and what a test does with them."""

    def __init__(self, directory: Path, url: str, stack: ExitStack, settings: dict[str, str] | None = None) -> None:
        self._stack = stack
        self.url = url
        self.first = stack.enter_context(ServiceProcess(directory, {"STORE_URL": url}))
        self.second = stack.enter_context(ServiceProcess(directory, settings, replica_of=self.first))
        self.operator = self.first.operator()
        self.access = self.operator.mint("app")

    def client(
        self, service: ServiceProcess, *others: ServiceProcess, access: Credentials | None = None
    ) -> ConfigClient:
        """Return a client that asks ``service``, and ``others`` when that one is gone."""
        access = access or self.access
        options = Options(
            host=",".join(one.url for one in (service, *others)),
            service_token=access.token,
            encryption_key=access.key,
            retry_delay=0.02,
            max_retry_delay=0.2,
        )
        return self._stack.enter_context(ConfigClient(options))

    def end_sessions(self) -> int:
        """End every connection of the services, and return how many there were."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            ended = connection.execute(f"SELECT pg_terminate_backend(pid) {sessions(self.url)}".encode())
            return len(ended.fetchall())


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Replicas]:
    """Two services for all tests that leave them as they were; each test has a config of its own."""
    with ExitStack() as stack:
        yield Replicas(tmp_path_factory.mktemp("replicas"), postgres.schema(), stack)


@pytest.fixture
def own_replicas(tmp_path: Path, postgres_url: str) -> Iterator[Replicas]:
    """Two services for a test that ends one of them, or replaces its store."""
    with ExitStack() as stack:
        yield Replicas(tmp_path, postgres_url, stack)


@pytest.fixture
def config(request: pytest.FixtureRequest) -> str:
    """The name of the config of this test."""
    return str(request.node.name).replace("_", "-")[:100]


def test_a_publish_through_one_reaches_watchers_of_the_other(replicas: Replicas, config: str) -> None:
    """In either direction, again and again, with no publish for the watcher to be woken by but that one."""
    replicas.operator.publish(config, {"n": 0})
    far = replicas.client(replicas.second).subscribe(config, dict, timeout=PATIENCE)
    near = replicas.client(replicas.first).subscribe(config, dict, timeout=PATIENCE)
    for number, operator in enumerate((replicas.operator, replicas.second.operator()) * 3, start=1):
        operator.publish(config, {"n": number})
        for subscription in (far, near):
            eventually(lambda: subscription.snapshot.load() == {"n": number})  # noqa: B023 - asked at once


def test_what_was_published_at_one_is_read_at_the_other_by_its_revision(replicas: Replicas, config: str) -> None:
    """Right after the answer, without a pause: a read that names the revision is never answered with an older state."""
    path = f"/api/v1/service/configs/{config}"
    headers = {"X-Service-Token": replicas.access.token}
    with httpx.Client(trust_env=False, headers=headers) as reader:
        for number in range(1, 21):
            replicas.operator.publish(config, {"n": number})
            newest = reader.get(f"{replicas.first.url}{path}")
            position = f"{newest.headers['X-Config-Epoch']}-{newest.headers['X-Config-Revision']}"
            answer = reader.get(f"{replicas.second.url}{path}", headers={"X-Config-Min-Revision": position})
            assert answer.status_code == 200
            assert answer.headers["X-Config-Version"] == str(number)


def test_a_config_of_a_moment_ago_is_found_through_the_other(replicas: Replicas, config: str) -> None:
    """It is read, listened to and subscribed to there right after the answer: nobody is told that it is missing."""
    headers = {"X-Service-Token": replicas.access.token}
    other = replicas.client(replicas.second)
    with httpx.Client(trust_env=False, headers=headers, base_url=replicas.second.url) as reader:
        for number in range(10):
            name = f"{config}-{number}"
            for view in ("", "/formatted?format=json"):
                replicas.operator.publish(f"{name}{len(view)}", {"n": number})
                assert reader.get(f"/api/v1/service/configs/{name}{len(view)}{view}").status_code == 200
            replicas.operator.publish(f"{name}-watched", {"n": number})
            with reader.stream("GET", f"/api/v1/service/configs/{name}-watched/watch") as stream:
                assert stream.status_code == 200
            replicas.operator.publish(name, {"n": number})
            assert other.subscribe(name, dict, timeout=PATIENCE).snapshot.load() == {"n": number}


def test_an_operator_sees_through_one_what_was_done_through_the_other(replicas: Replicas, config: str) -> None:
    """A token of a moment ago is known, a list is complete, a condition is judged by the newest version."""
    other = replicas.second.operator()
    for number in range(1, 11):
        access = replicas.operator.mint(f"app-{number}")
        assert [token["id"] for token in other.tokens()][-1] == access.token_id
        answer = httpx.get(
            f"{replicas.second.url}/api/v1/service/configs",
            headers={"X-Service-Token": access.token},
            trust_env=False,
        )
        assert answer.status_code == 200
        # Published through one, taken back through the other: "runs already" would be a lie.
        assert replicas.operator.publish(config, {"n": number}) == 3 * number - 2
        assert other.publish(config, {"n": -number}) == 3 * number - 1
        assert replicas.operator.publish(config, {"n": number}) == 3 * number


def test_a_revocation_through_one_ends_streams_of_the_other_within_a_second(replicas: Replicas, config: str) -> None:
    """The token is refused there from then on."""
    replicas.operator.publish(config, {"n": 1})
    access = replicas.operator.mint("revoked")
    with (
        httpx.Client(trust_env=False, timeout=PATIENCE, headers={"X-Service-Token": access.token}) as client,
        client.stream("GET", f"{replicas.second.url}/api/v1/service/configs/{config}/watch") as stream,
    ):
        assert stream.status_code == 200
        lines = stream.iter_lines()
        next(lines)
        replicas.operator.revoke(access.token_id)
        revoked = time.monotonic()
        for _ in lines:
            pass
        assert time.monotonic() - revoked < 1.0
        assert client.get(f"{replicas.second.url}/api/v1/service/configs").status_code == 401


def test_the_killed_replica_is_replaced_by_the_other(replicas: Replicas, config: str) -> None:
    """SIGKILL in the middle of publishing: what was acknowledged is there, and a watcher of it goes on elsewhere."""
    replicas.operator.publish(config, {"n": 0})
    subscription = replicas.client(replicas.first, replicas.second).subscribe(config, dict, timeout=PATIENCE)
    acknowledged = [1]
    begun = threading.Event()

    def publish() -> None:
        operator = replicas.first.operator()
        for number in range(1, 10_000):
            try:
                acknowledged.append(operator.publish(config, {"n": number}))
            except httpx.HTTPError:
                return
            if number == 20:
                begun.set()

    publishing = threading.Thread(target=publish)
    publishing.start()
    assert begun.wait(PATIENCE)
    os.kill(replicas.first.pid, signal.SIGKILL)
    publishing.join(PATIENCE)
    survivor = replicas.second.operator()
    versions = [int(str(row["version"])) for row in survivor.history(config)]
    assert versions == list(range(versions[0], 0, -1))
    assert set(acknowledged) <= set(versions)
    assert len(versions) <= len(acknowledged) + 1
    last = survivor.publish(config, {"n": "after"})
    eventually(lambda: subscription.snapshot.load() == {"n": "after"})
    replicas.first.kill()
    replicas.first.start()
    assert replicas.first.operator().history(config)[0]["version"] == last


def test_ended_sessions_are_opened_again_by_all(replicas: Replicas, config: str) -> None:
    """After ``pg_terminate_backend`` of everything both publish at once, and watchers of both hear of it."""
    for operator in (replicas.operator, replicas.second.operator()):
        operator.publish(config, {"n": 0})
    clients = [replicas.client(one) for one in (replicas.first, replicas.second)]
    subscriptions = [client.subscribe(config, dict, timeout=PATIENCE) for client in clients]
    for number, operator in enumerate((replicas.operator, replicas.second.operator()) * 2, start=1):
        assert replicas.end_sessions() >= 4
        operator.publish(config, {"n": number})
        for subscription in subscriptions:
            eventually(lambda: subscription.snapshot.load() == {"n": number})  # noqa: B023
    assert {subscription.status.state for subscription in subscriptions} == {State.LIVE}


def test_without_a_notification_the_poll_is_enough(replicas: Replicas, config: str) -> None:
    """A change whose NOTIFY nobody hears, as it is after a lost connection, arrives with the next look at the log."""
    replicas.second.operator().publish(config, {"n": 0})
    subscription = replicas.client(replicas.second).subscribe(config, dict, timeout=PATIENCE)
    with psycopg.connect(replicas.url, autocommit=True) as connection:
        listening = f"{sessions(replicas.url)} AND query LIKE 'LISTEN%'"
        eventually(lambda: connection.execute(f"SELECT 1 {listening}").rowcount >= 2)
        # The listener opens its connection again after a second: for that long nothing is heard.
        assert connection.execute(f"SELECT pg_terminate_backend(pid) {listening}").rowcount >= 2
    replicas.operator.publish(config, {"n": 1})
    eventually(lambda: subscription.snapshot.load() == {"n": 1}, 0.9)


@pytest.mark.long
def test_a_notification_is_enough_without_the_poll(tmp_path: Path, postgres_url: str) -> None:
    """With a poll that is never due, a watcher of another process hears of a publish all the same."""
    with ExitStack() as stack:
        replicas = Replicas(tmp_path, postgres_url, stack, RARELY)
        replicas.operator.publish("orders", {"n": 0})
        subscription = replicas.client(replicas.second).subscribe("orders", dict, timeout=PATIENCE)
        for number in range(1, 4):
            replicas.operator.publish("orders", {"n": number})
            eventually(lambda: subscription.snapshot.load() == {"n": number}, 10)  # noqa: B023


@pytest.mark.long
def test_a_replaced_history_ends_the_process_with_a_reason(own_replicas: Replicas) -> None:
    """Whoever served the old epoch says so and exits; started again it serves the new one."""
    own_replicas.operator.publish("orders", {"n": 0})
    with psycopg.connect(own_replicas.url, autocommit=True) as connection:
        connection.execute("UPDATE history SET epoch = 'f' || substr(epoch, 2)")
    assert own_replicas.second.wait() == 8
    assert "the history of the store was replaced" in own_replicas.second.log
    own_replicas.second.start()
    answer = httpx.get(
        f"{own_replicas.second.url}/api/v1/service/configs/orders",
        headers={"X-Service-Token": own_replicas.access.token},
        trust_env=False,
    )
    assert answer.headers["X-Config-Epoch"].startswith("f")


@pytest.mark.long
def test_a_store_that_lost_changes_ends_the_process_with_a_reason(own_replicas: Replicas) -> None:
    """A standby that took over without the latest changes has a shorter log: nobody goes on as if all were well."""
    own_replicas.operator.publish("orders", {"n": 0})
    with psycopg.connect(own_replicas.url, autocommit=True) as connection:
        connection.execute("UPDATE history SET revision = revision - 1")
    assert own_replicas.second.wait() == 8
    assert "has lost changes" in own_replicas.second.log


@pytest.mark.long
def test_while_the_database_is_away_reads_go_on_and_afterwards_everything(
    tmp_path: Path, own_postgres: OwnServer
) -> None:
    """Stopped and killed: configs are served, changes refused, nobody is ready; then all goes on where it was."""
    with ExitStack() as stack:
        replicas = Replicas(tmp_path, own_postgres.schema(), stack)
        both = (replicas.first, replicas.second)
        acknowledged = [replicas.operator.publish("orders", {"n": 0})]
        subscriptions = [replicas.client(one).subscribe("orders", dict, timeout=PATIENCE) for one in both]
        for end in (own_postgres.stop, own_postgres.kill):
            end()
            for service in both:
                headers = {"X-Service-Token": replicas.access.token}
                with httpx.Client(base_url=service.url, headers=headers, trust_env=False, timeout=PATIENCE) as client:
                    assert client.get("/api/v1/service/configs/orders").status_code == 200
                    assert client.get("/healthz").status_code == 200
                    eventually(lambda: client.get("/readyz").status_code == 503)
                with pytest.raises(httpx.HTTPStatusError, match="503"):
                    service.operator().publish("orders", {"n": "never"})
            own_postgres.start()
            for service in both:
                eventually(lambda: httpx.get(f"{service.url}/readyz", trust_env=False).status_code == 200)  # noqa: B023
                acknowledged.append(service.operator().publish("orders", {"n": len(acknowledged)}))
                for subscription in subscriptions:
                    eventually(lambda: subscription.snapshot.load() == {"n": acknowledged[-1] - 1})  # noqa: B023
        assert acknowledged == [1, 2, 3, 4, 5]
        assert [row["version"] for row in replicas.operator.history("orders")] == acknowledged[::-1]


# --- workers ---------------------------------------------------------------------------------------------------------


def children(pid: int) -> set[int]:
    """Return the processes that ``pid`` has started."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def workers(tmp_path: Path, postgres_url: str) -> Iterator[ServiceProcess]:
    """One service of three processes."""
    with ServiceProcess(tmp_path, {"STORE_URL": postgres_url, "WORKERS": "3"}) as service:
        yield service


@pytest.mark.long
def test_workers_serve_one_address_and_a_killed_one_is_replaced(workers: ServiceProcess) -> None:
    """Watchers of all of them hear of a publish through any; one that dies is missed by nobody for long."""
    started = children(workers.pid)
    assert len(started) == 3
    assert workers.log.count("Listening on") == 1
    operator = workers.operator()
    access = operator.mint("app")
    operator.publish("orders", {"n": 0})
    with ExitStack() as stack:
        subscriptions = []
        for _ in range(9):
            client = stack.enter_context(client_of(workers.url, access))
            subscriptions.append(client.subscribe("orders", dict, timeout=PATIENCE))
        operator.publish("orders", {"n": 1})
        for subscription in subscriptions:
            eventually(lambda: subscription.snapshot.load() == {"n": 1})  # noqa: B023
        os.kill(min(started), signal.SIGKILL)
        eventually(lambda: len(children(workers.pid)) == 3 and min(started) not in children(workers.pid))
        with httpx.Client(trust_env=False) as fresh:
            answer = fresh.put(
                f"{workers.url}/api/v1/manage/configs/orders",
                content=b'{"n": 2}',
                headers={"X-Service-Token": workers.admin_token},
            )
        assert answer.is_success
        for subscription in subscriptions:
            eventually(lambda: subscription.snapshot.load() == {"n": 2})  # noqa: B023
    assert "another one starts" in workers.log
    there = children(workers.pid)
    assert workers.stop() == 0
    assert not any(map(is_alive, there))


@pytest.mark.long
def test_workers_end_with_their_parent(workers: ServiceProcess) -> None:
    """Even if it is killed, and can tell them nothing."""
    there = children(workers.pid)
    workers.kill()
    eventually(lambda: not any(map(is_alive, there)))


@pytest.mark.long
def test_workers_that_cannot_start_say_why_once(tmp_path: Path, postgres: PostgresServer) -> None:
    """The first one is waited for: a store without a token is one message, and one exit status."""
    service = ServiceProcess(tmp_path, {"WORKERS": "3"})
    ended = service.run_cli("serve", "--port", "0", "--store-url", postgres.schema())
    assert ended.returncode == 8
    assert ended.stderr.count("error:") == 1
    assert "the store has no token" in ended.stderr
