"""``export-store`` and ``import`` between two real services: what arrives, what is left alone, what is refused."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.program import program
from config_service.domain.keys import ConfigKey

from .conftest import LiveService

pytestmark = pytest.mark.integration
KEYS = (ConfigKey("orders"), ConfigKey("orders", "prod", "release/1"), ConfigKey("billing"))
STAGED = ConfigKey("staged-only")


def run(live: LiveService, *arguments: str, stdin: bytes = b"", token: str = "") -> Result:
    """Run a command as an operator of ``live``."""
    environment = {"CONFIG_SERVER_URL": live.url, "CONFIG_SERVER_TOKEN": token or live.admin.secret}
    return CliRunner().invoke(program, list(arguments), env=environment, input=stdin)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service with histories, deletions, schemas and drafts."""
    service = LiveService(f"sqlite:///{tmp_path_factory.mktemp('source')}/config.db").start()
    operations, token = service.app.operations, service.admin.token
    for key in KEYS:
        for number in range(3):
            service.publish(b'{ "canary": "%d\\u00fc" }\n' % number, key)
    service.call(operations.delete(token, KEYS[2]))
    service.publish(b'{"again": true}', KEYS[2])
    service.call(operations.delete(token, KEYS[2]))
    service.call(operations.rollback(token, KEYS[0], 1))
    service.call(operations.schemas.set(token, KEYS[0], b'{"required": ["canary"]}'))
    service.call(operations.schemas.remove(token, KEYS[0]))
    service.call(operations.schemas.set(token, KEYS[0], b'{"type": "object"}'))
    service.call(operations.schemas.set(token, ConfigKey("schema-only"), b'{"required": ["a"]}'))
    service.call(operations.drafts.replace(token, KEYS[0], b'{"draft": 1}', 2))
    service.call(operations.drafts.replace(token, STAGED, b'{"draft": 2}'))
    yield service
    service.stop()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LiveService]:
    """A service without any config."""
    service = LiveService(f"sqlite:///{tmp_path}/target.db").start()
    yield service
    service.stop()


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    """A file with a key."""
    path = tmp_path / "export.key"
    path.write_text("ab" * 32 + "\n")
    return str(path)


def exported(live: LiveService, path: Path, *options: str) -> list[dict[str, Any]]:
    """Return the lines of a plain export, without what an import does not keep."""
    assert run(live, "export-store", str(path), "--plain", "--drafts", *options).exit_code == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = []
    for line in lines[1:-1]:
        ((kind, item),) = line.items()
        kept.append({kind: {name: item[name] for name in item if name not in {"changed_by", "timestamp", "kind"}}})
    return kept


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "plain"])
def test_an_import_says_what_the_export_said(
    source: LiveService, target: LiveService, tmp_path: Path, key_file: str, sealed: bool
) -> None:
    """Every version of every key byte for byte, tombstones, schemas and drafts; a second import changes nothing."""
    path = tmp_path / "store.export"
    options = ("--sealed", "--key-file", key_file) if sealed else ("--plain",)
    told = json.loads(run(source, "export-store", str(path), "--drafts", *options, "--json").stdout)
    assert (told["sealed"], told["bytes"]) == (sealed, path.stat().st_size)
    assert (b"canary" in path.read_bytes()) is not sealed
    reading = ("--key-file", key_file) if sealed else ()
    result = run(target, "import", str(path), *reading, "--json")
    assert result.exit_code == 0, result.stderr
    assert "canary" not in result.output
    done = json.loads(result.stdout)
    assert (done["configs"], done["versions_published"], done["schemas_set"], done["drafts_set"]) == (5, 13, 4, 2)
    assert exported(target, tmp_path / "second.export") == exported(source, tmp_path / "first.export")

    before = target.app.operations.position
    again = json.loads(run(target, "import", str(path), *reading, "--json").stdout)
    assert target.app.operations.position == before
    assert (again["versions_published"], again["versions_unchanged"], again["drafts_unchanged"]) == (0, 13, 2)


def test_an_import_that_was_cut_goes_on(source: LiveService, target: LiveService, tmp_path: Path) -> None:
    """From standard input what comes before the cut is published; the whole file then adds the rest."""
    path = tmp_path / "store.export"
    expected = exported(source, path)
    whole = path.read_bytes()
    cut = run(target, "import", "-", stdin=b"".join(whole.splitlines(keepends=True)[:6]))
    assert cut.exit_code == 6
    assert 0 < target.app.operations.position.revision < source.app.operations.position.revision
    assert run(target, "import", "-", stdin=whole).exit_code == 0
    assert exported(target, tmp_path / "second.export") == expected


def test_a_file_that_is_not_whole_publishes_nothing(
    source: LiveService, target: LiveService, tmp_path: Path, key_file: str
) -> None:
    """It is read to its end first; a sealed one under the wrong key, or none, neither."""
    path = tmp_path / "store.export"
    exported(source, path)
    whole = path.read_bytes()
    before = target.app.operations.position
    for damaged in (whole[:-1], b"".join(whole.splitlines(keepends=True)[:-1]), b"", b"{}\n"):
        path.write_bytes(damaged)
        assert run(target, "import", str(path)).exit_code == 6
    run(source, "export-store", str(path), "--sealed", "--key-file", key_file, "--overwrite")
    assert run(target, "import", str(path)).exit_code == 2
    Path(key_file).write_text("cd" * 32)
    assert run(target, "import", str(path), "--key-file", key_file).exit_code == 6
    assert target.app.operations.position == before


def test_what_differs_is_left_alone_unless_it_is_to_be_replaced(
    source: LiveService, target: LiveService, tmp_path: Path
) -> None:
    """Exit code 5 and the name; ``--dry-run`` publishes nothing; ``--replace`` publishes the newest of the file."""
    path = tmp_path / "store.export"
    exported(source, path)
    target.publish(b'{"own": 1}', KEYS[0])
    before = target.app.operations.position
    dry = run(target, "import", str(path), "--dry-run", "--json")
    assert (dry.exit_code, target.app.operations.position) == (5, before)
    assert json.loads(dry.stdout)["left_alone"] == ["orders (default, main)"]
    done = run(target, "import", str(path))
    assert (done.exit_code, "orders (default, main)" in done.stderr) == (5, True)
    shown = run(target, "show", "orders", "--format", "json")
    assert json.loads(shown.stdout) == {"own": 1}
    replaced = run(target, "import", str(path), "--replace", "--json")
    assert (replaced.exit_code, json.loads(replaced.stdout)["versions_published"]) == (0, 1)
    assert run(target, "show", "orders", "--format", "json").stdout_bytes == b'{ "canary": "0\\u00fc" }\n'
    before = target.app.operations.position
    assert run(target, "import", str(path), "--replace").exit_code == 0
    assert target.app.operations.position == before
    target.call(target.app.operations.drafts.replace(target.admin.token, STAGED, b'{"at work": 1}'))
    assert run(target, "import", str(path), "--replace").exit_code == 5
    shown = run(target, "draft", "show", STAGED.name, "--document")
    assert json.loads(shown.stdout) == {"at work": 1}


def test_a_service_that_went_on_is_left_as_it_is(source: LiveService, target: LiveService, tmp_path: Path) -> None:
    """Versions that came after those of the file are no difference."""
    path = tmp_path / "store.export"
    exported(source, path)
    assert run(target, "import", str(path)).exit_code == 0
    target.publish(b'{"newer": 1}', KEYS[1])
    assert run(target, "import", str(path), "--replace").exit_code == 0
    shown = run(target, "show", "orders", "-e", "prod", "-l", "release/1", "--format", "json")
    assert json.loads(shown.stdout) == {"newer": 1}


def test_a_version_that_the_service_refuses_ends_the_import_and_is_named(
    source: LiveService, target: LiveService, tmp_path: Path
) -> None:
    """By its config, with what to do, and with no value of it."""
    path = tmp_path / "store.export"
    exported(source, path)
    target.call(target.app.operations.schemas.set(target.admin.token, KEYS[2], b'{"required": ["missing"]}'))
    refused = run(target, "import", str(path))
    assert refused.exit_code == 6
    assert "billing (default, main)" in refused.stderr
    assert "again" in refused.stderr
    assert "canary" not in refused.output


def test_an_export_has_to_say_how_and_is_a_file_for_its_owner(
    source: LiveService, tmp_path: Path, key_file: str
) -> None:
    """Neither, or both, or a key for nothing is refused; the plain one is warned of; mode 0600; no partial file."""
    path = tmp_path / "store.export"
    for options in ((), ("--plain", "--sealed"), ("--sealed",), ("--plain", "--key-file", key_file)):
        assert run(source, "export-store", str(path), *options).exit_code == 2
    Path(key_file).write_text("no key")
    assert run(source, "export-store", str(path), "--sealed", "--key-file", key_file).exit_code == 2
    assert run(source, "export-store", str(path), "--sealed", "--key-file", f"{key_file}.not").exit_code == 2
    assert not path.exists()
    before = os.umask(0)
    try:
        done = run(source, "export-store", str(path), "--plain")
    finally:
        os.umask(before)
    assert (done.exit_code, "in the clear" in done.stderr) == (0, True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"draft" not in path.read_bytes()
    piped = run(source, "export-store", "-", "--plain")
    assert piped.stdout_bytes.splitlines()[1:] == path.read_bytes().splitlines()[1:]
    assert "lines" in piped.stderr


def test_an_export_takes_every_right_everywhere(source: LiveService, tmp_path: Path) -> None:
    """Rather than leaving out what the token may not see."""
    path = tmp_path / "store.export"
    scopes = [("*@*:admin",), ("*@*:read,export,write",), ("*@*:admin,export",), ("orders@*:admin,export,write",)]
    for scope in scopes:
        minted = run(source, "token", "create", "x", "--scope", scope[0], "--json")
        refused = run(source, "export-store", str(path), "--plain", token=json.loads(minted.stdout)["secret"])
        assert refused.exit_code == 3, scope
        assert not path.exists()


def test_what_was_archived_before_the_first_document_makes_no_difference(
    source: LiveService, target: LiveService, tmp_path: Path
) -> None:
    """A file that begins with a deletion is imported, and imported again, as one that begins behind it."""
    path = tmp_path / "store.export"
    exported(source, path)
    lines = path.read_bytes().splitlines(keepends=True)
    billing = [line for line in lines if line.startswith(b'{"version":{"name":"billing"')]
    kept = [lines[0], *billing[3:]]
    path.write_bytes(b"".join(kept) + b'{"end":{"lines":%d}}\n' % len(kept))
    assert [json.loads(line)["version"]["document"] for line in billing[3:]] == [None, '{"again": true}', None]
    told = json.loads(run(target, "import", str(path), "--json").stdout)
    assert told["versions_published"] == 2
    again = json.loads(run(target, "import", str(path), "--json").stdout)
    assert (again["versions_published"], again["versions_unchanged"], again["left_alone"]) == (0, 2, [])


def test_a_version_for_later_is_in_no_export_and_hinders_no_import(
    source: LiveService, target: LiveService, tmp_path: Path
) -> None:
    """Neither one that waits where the export is made, nor one that waits where it is imported."""
    document, path, second = tmp_path / "later.json", tmp_path / "store.export", tmp_path / "second.export"
    document.write_text('{"canary": "later"}')
    before = exported(source, path)
    assert run(target, "import", str(path)).exit_code == 0
    later = ("publish", "billing", str(document), "--valid-from", "2099-01-01T00:00:00Z")
    assert run(target, *later).exit_code == 0
    assert run(target, "publish", "orders", str(document), *later[3:]).exit_code == 0
    assert exported(target, second) == before
    again = json.loads(run(target, "import", str(path), "--json").stdout)
    assert (again["versions_published"], again["left_alone"]) == (0, [])


def test_what_was_archived_on_either_side_makes_no_difference(
    source: LiveService, target: LiveService, tmp_path: Path
) -> None:
    """Neither to an import where it was archived, nor to one of an export from there where it was not."""
    path, second = tmp_path / "store.export", tmp_path / "second.export"
    expected = exported(source, path)
    assert run(target, "import", str(path)).exit_code == 0
    archived = run(target, "archive", "--before", datetime.now(timezone.utc).isoformat(), "--yes")
    assert archived.exit_code == 0, archived.stderr
    again = json.loads(run(target, "import", str(path), "--json").stdout)
    assert (again["versions_published"], again["left_alone"]) == (0, [])
    shorter = exported(target, second)
    assert 0 < len(shorter) < len(expected)
    assert all(line in expected for line in shorter)
    before = source.app.operations.position
    back = json.loads(run(source, "import", str(second), "--json").stdout)
    assert (back["left_alone"], source.app.operations.position) == ([], before)
