"""Watching: the snapshot is filled, follows every change, and outlives what happens to the service."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import pytest

from config_client import (
    ConfigChangeEvent,
    ConfigClient,
    ForbiddenError,
    GetOptions,
    NotFoundError,
    UnauthorizedError,
    UnmarshalError,
)

PATIENCE = 60.0


@dataclass
class Orders:
    host: str
    port: int = 1


def test_the_snapshot_is_filled_at_once_and_follows_every_change(backend: Any, watch: Callable[..., Any]) -> None:
    """The first value comes without a change; then each change is swapped in, in order."""
    backend.publish("orders", {"host": "db1"})
    watching = watch("orders", Orders)
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    assert watching.snapshot.load() == Orders("db1")
    backend.wait_for_watchers(1)
    for version in (2, 3, 4):
        assert backend.publish("orders", {"host": f"db{version}"}) == version
        assert watching.snapshot.wait_for(version=version, timeout=PATIENCE)
    assert watching.snapshot.load() == Orders("db4")
    assert watching.versions == [1, 2, 3, 4]
    assert watching.errors == []


def test_a_document_that_does_not_fit_leaves_the_value_and_the_next_one_replaces_it(
    backend: Any, watch: Callable[..., Any]
) -> None:
    """The misfit is reported once and the last good value stays."""
    backend.publish("orders", {"host": "db1"})
    watching = watch("orders", Orders)
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.publish("orders", {"host": 7})
    assert watching.wait_for_error(UnmarshalError)
    assert watching.snapshot.load() == Orders("db1")
    backend.publish("orders", {"host": "db3"})
    assert watching.snapshot.wait_for(version=3, timeout=PATIENCE)
    assert watching.versions == [1, 3]
    assert len(watching.errors) == 1


def test_a_rollback_and_a_new_start_after_a_deletion_reach_the_watcher(backend: Any, watch: Callable[..., Any]) -> None:
    """A deletion keeps the value and is reported; what is published next replaces it."""
    backend.publish("orders", {"n": 1})
    watching = watch("orders")
    backend.publish("orders", {"n": 2})
    assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)
    assert backend.rollback("orders", 1) == 3
    assert watching.snapshot.wait_for(version=3, timeout=PATIENCE)
    assert watching.snapshot.load() == {"n": 1}
    assert backend.delete("orders") == 4
    assert watching.wait_for_error(NotFoundError)
    assert watching.snapshot.load() == {"n": 1}
    assert backend.publish("orders", {"n": 5}) == 5
    assert watching.snapshot.wait_for(version=5, timeout=PATIENCE)
    assert watching.raised == []


def test_a_watch_of_one_environment_and_label_sees_no_other(backend: Any, watch: Callable[..., Any]) -> None:
    """Changes of the same name elsewhere do not reach it, in whichever order they come."""
    where = {"environment": "prod", "label": "feature/x"}
    backend.publish("orders", {"n": "mine"}, **where)
    watching = watch("orders", dict, GetOptions(**where))
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.wait_for_watchers(1)
    backend.publish("orders", {"n": "default"})
    backend.publish("orders", {"n": "prod"}, environment="prod")
    backend.publish("orders", {"n": "mine again"}, **where)
    assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)
    assert watching.snapshot.load() == {"n": "mine again"}
    assert watching.versions == [1, 2]


def test_a_change_right_after_a_cut_is_delivered(backend: Any, watch: Callable[..., Any]) -> None:
    """Ten times the connection is reset and the value changed before the client is back; none of them is lost."""
    backend.publish("orders", {"n": 1})
    watching = watch("orders")
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    for version in range(2, 12):
        backend.wait_for_watchers(1)
        backend.cut()
        assert backend.publish("orders", {"n": version}) == version
        assert watching.snapshot.wait_for(version=version, timeout=PATIENCE)
    assert watching.snapshot.load() == {"n": 11}
    assert watching.versions == sorted(watching.versions)


def test_the_value_outlives_an_outage_and_is_current_after_it(backend: Any, watch: Callable[..., Any]) -> None:
    """While the service is down the last value stays; a change made right after its return arrives."""
    backend.publish("orders", {"n": 1})
    watching = watch("orders")
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.wait_for_watchers(1)
    backend.stop()
    backend.wait_for_watchers(0)
    assert watching.snapshot.load() == {"n": 1}
    backend.start()
    assert backend.publish("orders", {"n": 2}) == 2
    assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)
    assert watching.thread.is_alive()


def test_a_first_404_ends_the_watch_with_the_typed_error(backend: Any, watch: Callable[..., Any]) -> None:
    """A name that was never published is a mistake to be told; unless the application says it is not final."""
    watching = watch("nothing")
    watching.thread.join(PATIENCE)
    assert [type(error) for error in watching.raised] == [NotFoundError]
    patient = watch("later", final_errors=(UnauthorizedError, ForbiddenError))
    assert patient.wait_for_error(NotFoundError)
    backend.publish("later", {"n": 1})
    assert patient.snapshot.wait_for(version=1, timeout=PATIENCE)


def test_a_token_that_may_not_read_or_is_revoked_ends_the_watch(backend: Any, watch: Callable[..., Any]) -> None:
    """403 and 401 end a watch with their errors, the latter also in mid-stream; the value stays."""
    backend.publish("orders", {"n": 1})
    narrow = backend.mint(scopes=("other@*:read",))
    refused = watch("orders", service_token=narrow.token, encryption_key=narrow.key)
    refused.thread.join(PATIENCE)
    assert [type(error) for error in refused.raised] == [ForbiddenError]
    credentials = backend.mint()
    watching = watch("orders", service_token=credentials.token, encryption_key=credentials.key)
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.wait_for_watchers(1)
    backend.revoke(credentials)
    watching.thread.join(PATIENCE)
    assert [type(error) for error in watching.raised] == [UnauthorizedError]
    assert watching.snapshot.load() == {"n": 1}


def test_a_restore_from_backup_is_taken_although_its_revisions_are_lower(
    backend: Any, watch: Callable[..., Any]
) -> None:
    """After a disaster the service holds an earlier state under a later epoch: that is the newest state now."""
    backend.publish("orders", {"n": 1})
    backup = backend.backup()
    watching = watch("orders")
    for version in (2, 3):
        backend.publish("orders", {"n": version})
    assert watching.snapshot.wait_for(version=3, timeout=PATIENCE)
    backend.restore(backup)
    assert backend.publish("orders", {"n": "restored"}) == 2
    restored = threading.Event()
    watching.snapshot.on_change(lambda change: restored.set() if change.new == {"n": "restored"} else None)
    if watching.snapshot.load() != {"n": "restored"}:
        assert restored.wait(PATIENCE)
    assert watching.snapshot.version == 2


def test_a_watch_goes_on_through_a_rotation_of_its_key(backend: Any, watch: Callable[..., Any]) -> None:
    """A client that holds both keys follows through overlap and end; what it held stays readable."""
    backend.publish("orders", {"n": 1})
    credentials = backend.mint()
    rotated = backend.rotate_key(credentials)
    watching = watch("orders", service_token=credentials.token, encryption_key=f"{rotated.key},{credentials.key}")
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.wait_for_watchers(1)
    backend.publish("orders", {"n": 2})
    assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)
    assert watching.errors == []


def test_reloaded_keys_follow_a_rotation_without_overlap(backend: Any, watch: Callable[..., Any]) -> None:
    """A payload under a key that is not held makes the client ask for its keys, and the change arrives."""
    backend.publish("orders", {"n": 1})
    credentials = backend.mint()
    keys = [credentials.key]
    watching = watch(
        "orders",
        service_token=credentials.token,
        encryption_key=credentials.key,
        reload_keys=lambda: ",".join(keys),
    )
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    backend.wait_for_watchers(1)
    keys.insert(0, backend.rotate_key(credentials, overlap=False).key)
    backend.publish("orders", {"n": 2})
    assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)


@pytest.mark.parametrize("named", [True, False], ids=["one environment", "every environment"])
def test_watch_tells_of_every_change_in_order_and_once(
    backend: Any, connect: Callable[..., ConfigClient], named: bool
) -> None:
    """``watch`` hears of publishes, rollbacks and deletions, with their versions, across a cut."""
    backend.publish("orders", {"n": 1})
    heard: Queue[ConfigChangeEvent] = Queue()
    client = connect()
    options = GetOptions(environment="default") if named else None
    thread = threading.Thread(target=client.watch, args=("orders", heard.put, options), daemon=True)
    thread.start()
    backend.wait_for_watchers(1)
    backend.publish("orders", {"n": 2})
    assert heard.get(timeout=PATIENCE).version == 2
    backend.cut()
    backend.rollback("orders", 1)
    backend.delete("orders")
    backend.publish("orders", {"n": 5})
    events = []
    while not events or events[-1].version != 5:
        events.append(heard.get(timeout=PATIENCE))
    assert [event.version for event in events] == [3, 4, 5]
    assert [event.deleted for event in events] == [False, True, False]
    assert {event.environment for event in events} == {"default"}
    with pytest.raises(Empty):
        heard.get_nowait()
    client.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_watch_without_an_environment_hears_of_all_that_the_token_may_read(
    backend: Any, connect: Callable[..., ConfigClient]
) -> None:
    """Environments that come later are told of too; those beyond the token's scopes never are."""
    backend.publish("orders", {"n": 1})
    heard: Queue[ConfigChangeEvent] = Queue()
    client = connect(backend.mint(scopes=("orders@default:read", "orders@prod:read")))
    thread = threading.Thread(target=client.watch, args=("orders", heard.put), daemon=True)
    thread.start()
    backend.wait_for_watchers(1)
    backend.publish("orders", {"n": "secret"}, environment="vault")
    backend.publish("orders", {"n": 1}, environment="prod")
    backend.publish("orders", {"n": 2})
    first, second = heard.get(timeout=PATIENCE), heard.get(timeout=PATIENCE)
    assert [(first.environment, first.version), (second.environment, second.version)] == [("prod", 1), ("default", 2)]
    client.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_on_a_service_that_knows_the_base_protocol_only_nothing_is_lost_either(
    backend: Any, watch: Callable[..., Any]
) -> None:
    """Without state-first watch the base stream and conditional fetches keep the value current, across cuts."""
    backend.set_base_only(True)
    backend.publish("orders", {"n": 1})
    watching = watch("orders")
    assert watching.snapshot.wait_for(version=1, timeout=PATIENCE)
    for version in range(2, 6):
        backend.wait_for_watchers(1)
        backend.cut()
        backend.publish("orders", {"n": version})
        assert watching.snapshot.wait_for(version=version, timeout=PATIENCE)
    assert watching.raised == []
