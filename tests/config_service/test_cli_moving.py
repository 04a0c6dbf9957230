"""Moving a store from one kind to another by backup and restore: what arrives is what there was, and it is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from postgres import PostgresServer
from typer.testing import CliRunner

from config_service.cli.program import program
from config_service.domain.keys import ConfigKey

from .conftest import MASTER_KEY, LiveService

pytestmark = pytest.mark.integration
KEYS = (ConfigKey("orders"), ConfigKey("orders", "prod", "release/1"))


def run(*arguments: str, **variables: str) -> dict[str, Any]:
    """Run a command that succeeds, and return what it printed as JSON."""
    environment = {"CONFIG_SERVER_MASTER_KEY": MASTER_KEY, **variables}
    result = CliRunner(env=environment).invoke(program, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_a_store_moves_from_sqlite_to_postgresql_to_files_and_back(tmp_path: Path, postgres: PostgresServer) -> None:
    """Histories, drafts, schemas and tokens; each restore adds an entry to a log that verifies; old tokens work."""
    first = LiveService(f"sqlite:///{tmp_path}/first.db").start()
    operator = {"CONFIG_SERVER_URL": first.url, "CONFIG_SERVER_TOKEN": first.admin.secret}
    try:
        for key in KEYS:
            for number in range(20):
                first.publish(b'{"number": %d, "text": "%s"}' % (number, b"x" * 200 * number), key)
        operations, admin = first.app.operations, first.admin.token
        first.call(operations.delete(admin, KEYS[1]))
        first.call(operations.schemas.set(admin, KEYS[0], b'{"type": "object"}'))
        first.call(operations.drafts.replace(admin, KEYS[0], b'{"staged": true}'))
        first.call(operations.tokens.rotate_key(admin, first.reader.token.id, 60))
        told = run("backup", str(tmp_path / "0.backup"), **operator)
    finally:
        first.stop()
    places = [postgres.schema(), f"file://{tmp_path}/files", f"sqlite:///{tmp_path}/last.db"]
    revision = told["revision"]
    for number, place in enumerate(places):
        restored = run("restore", str(tmp_path / f"{number}.backup"), "--store-url", place)
        assert restored["restored_revision"] == revision + 1
        run("audit", "verify", "--store-url", place)
        copied = run("backup", str(tmp_path / f"{number + 1}.backup"), "--store-url", place)
        assert copied["revision"] == revision + 1
        assert copied["epoch"] == restored["restored_epoch"] > restored["epoch"]
        revision += 1
    assert records(tmp_path / "3.backup") == records(tmp_path / "0.backup")

    last = LiveService(places[-1]).start()
    operator["CONFIG_SERVER_URL"] = last.url
    try:
        assert run("show", "orders", **operator)["version"] == 20
        assert run("draft", "show", "orders", **operator)["base"] == 20
        assert run("list", **operator)["configs"][1]["deleted"] is True
    finally:
        last.stop()


def records(path: Path) -> list[str]:
    """Return the records of a backup up to its tokens, without what a restore adds to the log."""
    lines = [line.split("\t")[0] for line in path.read_text().splitlines()[1:-1]]
    return [line for line in lines if not line.startswith('{"token"') and '"restored"' not in line]
