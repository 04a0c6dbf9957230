"""The commands about keys and the log, as an operator uses them: on a running service, and on a stopped store."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.program import program
from config_service.domain.keys import ConfigKey
from tests.config_service.conftest import MASTER_KEY, LiveService

CANARY = "canary-3b9d"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[LiveService]:
    service = LiveService(f"sqlite:///{tmp_path}/store.db").start()
    for number in range(3):
        service.publish(b'{"value": "%s-%d"}' % (CANARY.encode(), number))
    service.publish(b"{}", ConfigKey("other"))
    try:
        yield service
    finally:
        service.stop()


def call(live: LiveService, *args: str, **env: str) -> Result:
    told = {"CONFIG_SERVER_URL": live.url, "CONFIG_SERVER_TOKEN": live.admin.secret} | env
    return CliRunner().invoke(program, list(args), env=told)


def rows(result: Result) -> list[dict[str, str]]:
    header, *lines = (line.split("\t") for line in result.stdout.splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_a_rotation_from_end_to_end(live: LiveService) -> None:
    """The new key seals, resealing moves everything under it, the old one is gone; the log says so and verifies."""
    before = rows(call(live, "keys", "list"))
    assert [(row["ID"], row["USE"], row["MASTER KEY"]) for row in before] == [
        ("1", "chain", "current"),
        ("2", "active", "current"),
    ]
    rotated = call(live, "keys", "rotate")
    assert rotated.exit_code == 0
    assert "keys reseal" in rotated.stderr
    assert [row["USE"] for row in rows(rotated)] == ["chain", "retired", "active"]
    resealed = call(live, "keys", "reseal", "--batch", "2", "--json")
    assert json.loads(resealed.stdout) == {"resealed": 6, "remaining": 0, "destroyed": [2], "damaged": []}
    assert call(live, "keys", "reseal").stdout == "0 sealed anew, 0 keys destroyed\n"
    assert [(row["ID"], row["VALUES"]) for row in rows(call(live, "keys", "list"))] == [("1", "0"), ("3", "6")]
    kinds = [row["KIND"] for row in rows(call(live, "audit", "list"))]
    assert kinds[-2:] == ["data_key_created", "data_keys_destroyed"]
    assert call(live, "audit", "verify").exit_code == 0


def test_a_rotation_of_the_master_key_that_changes_nothing_says_so(live: LiveService) -> None:
    """The service has one master key, under which everything is wrapped."""
    result = call(live, "keys", "rotate-master")
    assert result.exit_code == 0
    assert "already" in result.stderr
    assert json.loads(call(live, "keys", "rotate-master", "--json").stdout)["changed"] is False


def test_what_a_reseal_leaves_behind_is_named_with_an_exit_code(live: LiveService, tmp_path: Path) -> None:
    """The value that does not open, and that its key is kept."""
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute("UPDATE versions SET document = zeroblob(40) WHERE name = 'orders' AND version = 1")
    connection.execute("UPDATE versions SET document = x'0200000002' || document WHERE 0")
    connection.execute("UPDATE versions SET document = substr(document, 1, 40) WHERE name = 'orders' AND version = 2")
    connection.close()
    call(live, "keys", "rotate")
    result = call(live, "keys", "reseal")
    assert result.exit_code == 9
    assert "orders (default, main) version 2 does not open" in result.stderr
    assert "still sealed under older keys" in result.stderr


def test_the_log_is_listed_with_filters_and_never_with_a_value(live: LiveService) -> None:
    """What, when, by which token; as a table, and as JSON with the details."""
    listed = rows(call(live, "audit", "list", "--name", "orders"))
    assert [(row["KIND"], row["WHAT"], row["TOKEN"]) for row in listed] == [
        ("published", f"orders (default, main) {number}", "admin") for number in (1, 2, 3)
    ]
    result = call(live, "audit", "list", "--json", "--kind", "token_created")
    entries = json.loads(result.stdout)["entries"]
    assert [entry["detail"]["name"] for entry in entries] == ["admin", "reader"]
    assert rows(call(live, "audit", "list", "--by", "2"))[0]["WHAT"] == "token 2 reader"
    assert rows(call(live, "audit", "list", "--since", "2999-01-01T00:00:00Z")) == []
    assert CANARY not in call(live, "audit", "list", "--json").output
    for wrong in (("--since", "yesterday"), ("--kind", "no-such-kind")):
        assert call(live, "audit", "list", *wrong).exit_code == 6


def test_a_sound_store_verifies_online_and_offline(live: LiveService, tmp_path: Path) -> None:
    """With an anchor that was printed before; the JSON is the report."""
    anchor = call(live, "audit", "head").stdout.strip()
    assert json.loads(call(live, "audit", "head", "--json").stdout)["anchor"] == anchor
    live.publish(b'{"value": 9}')
    result = call(live, "audit", "verify", "--anchor", anchor)
    assert result.exit_code == 0
    assert "STATE\tsound" in result.stdout
    report = json.loads(call(live, "audit", "verify", "--json").stdout)
    assert (report["sound"], report["findings"], report["head"]["revision"]) == (True, [], 7)
    live.stop()
    arguments = ("audit", "verify", "--store-url", f"sqlite:///{tmp_path}/store.db", "--anchor", anchor)
    offline = call(live, *arguments, CONFIG_SERVER_MASTER_KEY=MASTER_KEY)
    assert (offline.exit_code, offline.stdout) == (
        0,
        call(live, *arguments, CONFIG_SERVER_MASTER_KEY=MASTER_KEY).stdout,
    )
    assert call(live, *arguments, CONFIG_SERVER_MASTER_KEY="00" * 32).exit_code == 8


def test_a_tampered_store_is_told_by_its_revisions_and_an_exit_code(live: LiveService, tmp_path: Path) -> None:
    """Online while the service serves from memory, and offline; both name the same."""
    path = tmp_path / "store.db"
    anchor = call(live, "audit", "head").stdout.strip()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE log SET changed_by = 2 WHERE revision = 4")
    connection.close()
    online = call(live, "audit", "verify")
    assert online.exit_code == 9
    assert [row["REVISION"] for row in rows(online)] == ["4", "4"]
    assert "is not what it was" in online.stderr
    assert json.loads(call(live, "audit", "verify", "--json").stdout)["sound"] is False
    live.stop()
    copy = shutil.copy(path, tmp_path / "copy.db")
    offline = call(live, "audit", "verify", "--store-url", f"sqlite:///{copy}", CONFIG_SERVER_MASTER_KEY=MASTER_KEY)
    assert (offline.exit_code, offline.stdout) == (9, online.stdout)
    other = anchor.replace("6:", "5:")
    assert call(live, "audit", "verify", "--anchor", other, "--store-url", f"sqlite:///{copy}").exit_code != 0


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("UPDATE tokens SET secret_hash = 'text' WHERE id = 2", "tokens.secret_hash"),
        ("UPDATE history SET revision = 'text'", "history.revision"),
        ("UPDATE history SET link = 'text'", "history.link"),
    ],
)
def test_a_column_of_another_kind_is_a_finding_and_serve_names_it(
    live: LiveService, tmp_path: Path, statement: str, column: str
) -> None:
    """Online and offline with the exit code of a finding; a service does not start, and says why."""
    url = f"sqlite:///{tmp_path}/store.db"
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute(statement)
    connection.close()
    online = call(live, "audit", "verify")
    live.stop()
    offline = call(live, "audit", "verify", "--store-url", url, CONFIG_SERVER_MASTER_KEY=MASTER_KEY)
    for result in (online, offline):
        assert (result.exit_code, f"{column} " in result.stdout) == (9, True), result.output
    assert json.loads(
        call(live, "audit", "verify", "--store-url", url, "--json", CONFIG_SERVER_MASTER_KEY=MASTER_KEY).stdout
    )["findings"]
    served = call(live, "serve", "--store-url", url, "--port", "0", CONFIG_SERVER_MASTER_KEY=MASTER_KEY)
    assert (served.exit_code, served.stdout) == (8, "")
    assert f"error: {column} " in served.stderr


@pytest.mark.parametrize("form", ["sqlite:///{}/none/store.db", "file://{}/none"])
@pytest.mark.parametrize("arguments", [("audit", "verify"), ("backup", "-")])
def test_no_store_is_made_where_there_is_none(arguments: tuple[str, ...], form: str, tmp_path: Path) -> None:
    """A mistyped URL is told as such, and leaves nothing behind."""
    result = CliRunner().invoke(
        program, [*arguments, "--store-url", form.format(tmp_path)], env={"CONFIG_SERVER_MASTER_KEY": MASTER_KEY}
    )
    assert (result.exit_code, result.stdout) == (4, "")
    assert "there is no store; nothing was made" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("anchor", ["5", "x:1", "6:" + "g" * 64])
def test_what_is_no_anchor_is_refused(live: LiveService, anchor: str) -> None:
    """Before anything is verified, online and offline."""
    for more in ((), ("--store-url", "sqlite:///nowhere.db")):
        result = call(live, "audit", "verify", "--anchor", anchor, *more, CONFIG_SERVER_MASTER_KEY=MASTER_KEY)
        assert result.exit_code == 6
        assert "audit head" in result.stderr


def test_a_verification_that_is_cut_off_is_no_success(live: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an answer without a report nor one that ends in an error is taken for a sound store."""
    for lines, code in ((b'{"done": 0, "total": 9}\n', 7), (b'{"error": {"message": "the disk is gone"}}\n', 7)):

        async def cut(*_: Any, lines: bytes = lines) -> Any:
            yield lines

        monkeypatch.setattr("config_service.api.audit._lines", cut)
        result = call(live, "audit", "verify")
        assert result.exit_code == code
        assert result.stdout == ""
