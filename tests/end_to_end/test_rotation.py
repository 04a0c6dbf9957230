"""A token's key is rotated while the service and its clients run; the manual's way of doing so works as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from config_client import ConfigClient, DecryptionError
from config_client.crypto import decrypt, key_id
from config_service.process import Credentials, Operator, ServiceProcess

OPERATIONS = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def _published(operator: Operator) -> None:
    operator.publish("orders", {"version": 1})


def read(client: ConfigClient) -> object:
    """Return what version a client reads."""
    return client.get_raw("orders")["version"]


def sealed(service: ServiceProcess, access: Credentials, *key_ids: str) -> bytes:
    """Return the payload for a client that tells these key ids; without any, for one that tells nothing."""
    headers = {"X-Service-Token": access.token} | ({"X-Config-Key-Ids": ",".join(key_ids)} if key_ids else {})
    answer = httpx.get(f"{service.url}/api/v1/service/configs/orders", headers=headers, trust_env=False)
    return answer.raise_for_status().content


def assert_never_restarted(service: ServiceProcess) -> None:
    """Everything was done by one process."""
    assert service.log.count("Listening on") == 1


def test_a_client_with_the_old_key_reads_on_through_the_overlap(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """A running client is not touched, one with both keys reads too, in either order, and so does the next version."""
    old = connect()
    assert read(old) == 1
    key = operator.rotate_key(access.token_id, 3600)
    assert key != access.key
    both = [connect(encryption_key=keys) for keys in (f"{key},{access.key}", f"{access.key},{key}")]
    for version in (1, 2):
        assert [read(client) for client in (old, connect(), *both)] == [version] * 4
        operator.publish("orders", {"version": version + 1})
    assert_never_restarted(service)


def test_the_service_seals_under_a_key_that_the_client_says_it_holds(
    service: ServiceProcess, operator: Operator, access: Credentials
) -> None:
    """The newest of them during the overlap; the old one for who tells nothing; the new one for who holds neither."""
    new_hex = operator.rotate_key(access.token_id, 3600)
    new, old = bytes.fromhex(new_hex), bytes.fromhex(access.key)
    for told, key in (
        ((), old),
        ((key_id(old),), old),
        ((key_id(new),), new),
        ((key_id(old), key_id(new)), new),
        (("0" * 16,), new),
    ):
        assert decrypt(sealed(service, access, *told), key) == b'{"version": 1}'


def test_without_overlap_the_old_key_no_longer_opens(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """At once, for the running client too; who has been given the new key reads on, and no key is in the log."""
    old = connect()
    assert read(old) == 1
    new = operator.rotate_key(access.token_id, 3600)
    both = connect(encryption_key=f"{new},{access.key}")
    assert read(both) == 1
    newest = operator.rotate_key(access.token_id, 0)
    for client in (old, both):
        with pytest.raises(DecryptionError) as refused:
            read(client)
        assert access.key not in str(refused.value)
        assert newest not in str(refused.value)
    assert read(connect(encryption_key=newest)) == 1
    assert read(connect(encryption_key=f"{newest},{new},{access.key}")) == 1
    assert_never_restarted(service)
    for secret in (access.key, new, newest, access.token):
        assert secret not in service.log


def test_the_old_key_ends_by_itself_when_the_overlap_does(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """Nobody has to do anything: from that moment on payloads are sealed under the new key."""
    old = connect()
    new = operator.rotate_key(access.token_id, 2)
    both = connect(encryption_key=f"{new},{access.key}")
    deadline = time.monotonic() + PATIENCE
    ended = False
    while not ended and time.monotonic() < deadline:
        assert read(both) == 1
        try:
            read(old)
        except DecryptionError:
            ended = True
    assert ended
    assert decrypt(sealed(service, access), bytes.fromhex(new)) == b'{"version": 1}'
    assert decrypt(sealed(service, access, key_id(bytes.fromhex(access.key))), bytes.fromhex(new)) == b'{"version": 1}'
    assert_never_restarted(service)


def test_watches_go_on_over_a_rotation(operator: Operator, access: Credentials, watch: Callable[..., object]) -> None:
    """Streams that were open before hear of what is published after, under keys that they hold."""
    old = watch("orders")
    assert old.snapshot.wait_for(version=1, timeout=PATIENCE)
    new = operator.rotate_key(access.token_id, 3600)
    both = watch("orders", encryption_key=f"{new},{access.key}")
    assert both.snapshot.wait_for(version=1, timeout=PATIENCE)
    operator.publish("orders", {"version": 2})
    for watching in (old, both):
        assert watching.snapshot.wait_for(version=2, timeout=PATIENCE)
    assert operator.rotate_key(access.token_id, 0) != new
    operator.publish("orders", {"version": 3})
    for watching in (old, both):
        assert watching.wait_for_error(DecryptionError, PATIENCE)
        assert watching.snapshot.load() == {"version": 2}


def test_rotated_keys_outlive_a_killed_service(
    service: ServiceProcess, operator: Operator, access: Credentials, connect: Callable[..., ConfigClient]
) -> None:
    """An answered rotation is durable: after SIGKILL both keys are valid, and the announced end still stands."""
    new = operator.rotate_key(access.token_id, 3600)
    keys = keys_of(service, access)
    service.kill()
    service.start()
    assert keys_of(service, access) == keys
    assert read(connect()) == 1
    assert read(connect(encryption_key=f"{new},{access.key}")) == 1


def keys_of(service: ServiceProcess, access: Credentials) -> list[dict[str, str | None]]:
    """Return the keys of the token as its operator sees them."""
    operator = service.operator()
    (row,) = [row for row in operator.tokens() if row["id"] == access.token_id]
    keys: list[dict[str, str | None]] = row["keys"]
    return keys


def documented() -> list[str]:
    """Return the commands of the manual's section on rotating a key."""
    section = OPERATIONS.read_text().split("## Rotate a token's key", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^ *\$ (.+)$", section, re.MULTILINE)


def test_every_command_of_the_manual_on_rotation_works_as_written(
    service: ServiceProcess,
    operator: Operator,
    access: Credentials,
    connect: Callable[..., ConfigClient],
    tmp_path: Path,
) -> None:
    """Typed in their order at a shell, for the token 2 that they speak of: clients read on until the last of them."""
    assert access.token_id == 2
    commands = documented()
    assert [command.split()[:3] for command in commands] == [
        ["config-service", "token", "list"],
        ["config-service", "token", "rotate-key"],
        ["config-service", "token", "list"],
        ["config-service", "token", "rotate-key"],
    ]
    shim = tmp_path / "bin" / "config-service"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m config_service "$@"\n')
    shim.chmod(0o755)
    environment = service.environment | {
        "PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}",
        "CONFIG_SERVER_URL": service.url,
        "CONFIG_SERVER_TOKEN": service.admin_token,
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key_in(output: str) -> str:
        found = re.search(r"^key\t([0-9a-f]{64})$", output, re.MULTILINE)
        assert found is not None
        return found[1]

    listed, rotate, ends, end_at_once = commands
    assert "2\tapp\t" in run(listed)
    key = key_in(run(rotate))
    assert read(connect()) == 1
    assert read(connect(encryption_key=f"{key},{access.key}")) == 1
    assert key_id(bytes.fromhex(access.key)) in run(ends)
    newest = key_in(run(end_at_once))
    assert read(connect(encryption_key=newest)) == 1
    with pytest.raises(DecryptionError):
        read(connect(encryption_key=f"{key},{access.key}"))
