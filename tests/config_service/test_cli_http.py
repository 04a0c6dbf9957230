"""The commands over HTTP: what they send, what they print, and how they end. The service here is scripted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.exits import CommandError, ExitCode
from config_service.cli.manage import ManageApi
from config_service.cli.program import program

ROOT = Path(__file__).parents[2]
TOKEN = "cst_canary-operator-token"
ROW = {
    "name": "orders",
    "environment": "prod",
    "label": "main",
    "version": 3,
    "revision": 17,
    "deleted": False,
    "changed_by": 1,
    "timestamp": "2026-01-02T03:04:05+00:00",
}
MINTED = {
    "id": 7,
    "name": "orders",
    "environment": "prod",
    "scopes": ["orders@prod:read"],
    "secret": "cst_fresh'secret",
    "key": "ab" * 32,
    "created_at": "2026-01-02T03:04:05+00:00",
    "expires_at": None,
}


@dataclass
class Request:
    """What the scripted service was asked."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """A service that gives one prepared answer to everything, and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def answer(self, value: object, status: int = 200) -> None:
        """Answer with ``value`` as JSON from now on."""
        self.status, self.body = status, json.dumps(value).encode()

    def refuse(self, status: int, message: str) -> None:
        """Answer with an error of the service from now on."""
        self.answer({"error": {"code": "some_code", "message": message}}, status)

    @property
    def request(self) -> Request:
        """The only request there was."""
        (request,) = self.requests
        return request


@pytest.fixture
def service() -> Iterator[Script]:
    """A scripted service on a free loopback port."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.requests.append(
                Request(self.command, parts.path, parse_qs(parts.query), dict(self.headers.items()), body)
            )
            self.send_response(script.status)
            for name, value in {"Content-Length": str(len(script.body)), **script.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(script.body)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _reply  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


def run(service: Script, *args: str, stdin: bytes | None = None) -> Result:
    """Run a command as an operator of ``service``."""
    environment = {"CONFIG_SERVER_URL": service.url, "CONFIG_SERVER_TOKEN": TOKEN}
    return CliRunner(env=environment).invoke(program, args, input=stdin)


def test_publish_sends_the_file_byte_for_byte(service: Script, tmp_path: Path) -> None:
    """The bytes of the file are the body, whatever their spacing, and the operator's token is in its header."""
    document = b'{ "a":1,\n\t"b":"\xc3\xbc" }\n'
    (tmp_path / "orders.json").write_bytes(document)
    service.answer(ROW | {"changed": True}, 201)
    result = run(service, "publish", "orders", str(tmp_path / "orders.json"), "-e", "prod", "-l", "team/x")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "orders (prod, main): version 3, revision 17\n"
    sent = service.request
    assert (sent.method, sent.path, sent.body) == ("PUT", "/api/v1/manage/configs/orders", document)
    assert sent.query == {"environment": ["prod"], "label": ["team/x"]}
    assert sent.headers["X-Service-Token"] == TOKEN
    assert sent.headers["Content-Type"] == "application/json"
    assert "If-Match" not in sent.headers
    assert "If-None-Match" not in sent.headers


def test_publish_reads_standard_input(service: Script) -> None:
    """``-`` is standard input, also byte for byte; an empty query is left out."""
    service.answer(ROW | {"changed": False})
    result = run(service, "publish", "orders", "-", stdin=b'{"a": 1}\r\n')
    assert result.stdout == "orders (prod, main): unchanged, still version 3\n"
    assert service.request.body == b'{"a": 1}\r\n'
    assert service.request.query == {}


@pytest.mark.parametrize(
    ("option", "header", "value"), [(["--if-match", "3"], "If-Match", '"3"'), (["--create"], "If-None-Match", "*")]
)
def test_publish_can_be_conditional(service: Script, option: list[str], header: str, value: str) -> None:
    """``--if-match N`` and ``--create`` become the conditional headers."""
    service.answer(ROW | {"changed": True}, 201)
    assert run(service, "publish", "orders", "-", *option, stdin=b"{}").exit_code == 0
    assert service.request.headers[header] == value


@pytest.mark.parametrize(
    "args",
    [
        ("publish", "orders", "-", "--create", "--if-match", "1"),
        ("publish", "orders", "/nowhere/at/all.json"),
        ("publish", "orders", "nul\0byte"),
        ("publish", "orders", "-", "--if-match", "0"),
        ("show", "orders", "--format", "json", "--json"),
        ("show", "orders", "--version", "1"),
        ("show", "orders", "--format", "xml"),
        ("delete", "orders"),
        ("rollback", "orders", "0"),
        ("rollback", "orders"),
        ("token", "create", "x", "--export", "--json"),
        ("token", "create", "x", "--expires-in", "soon"),
        ("token", "create", "x", "--expires-in", "0d"),
        ("token", "create", "x", "--expires-in", "999999999w"),
        ("token", "create", "x", "--expires-in", "99999999d"),
        ("token", "revoke", "seven"),
        ("token", "rotate-key", "seven"),
        ("token", "rotate-key", "7", "--overlap", "soon"),
        ("token", "rotate-key", "7", "--overlap", "-1h"),
        ("token", "rotate-key", "7", "--overlap", "90"),
        ("token", "rotate-key", "7", "--overlap", "999999999w"),
        ("draft", "show", "orders", "--document", "--json"),
        ("draft", "set", "orders", "/nowhere/at/all.json"),
        ("draft", "set", "orders", "-", "--base", "-1"),
        ("draft", "discard", "orders"),
        ("draft", "revert", "orders", "--version", "0"),
        ("schema", "show", "orders", "--document", "--json"),
        ("schema", "set", "orders", "/nowhere/at/all.json"),
        ("schema", "remove", "orders"),
        ("list", "--nonsense"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_2_and_sends_nothing(service: Script, args: tuple[str, ...]) -> None:
    """Wrong usage is told on stderr with exit code 2, before anything is sent."""
    result = run(service, *args)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr
    assert result.stdout == ""
    assert service.requests == []


@pytest.mark.parametrize("name", ["", "..", "../tokens", "a/b", "a\0b", "a" * 10_000, "healthz", "a%2fb", "-a", "ü"])
@pytest.mark.parametrize("command", [("show",), ("history",), ("delete", "--yes"), ("rollback",)])
def test_a_name_that_is_no_slug_is_never_sent(service: Script, command: tuple[str, ...], name: str) -> None:
    """A name that could reach another route is refused before a request is made, with the rule and exit code 6."""
    extra = ["2"] if command[0] == "rollback" else []
    result = run(service, *command, "--", name, *extra)
    assert result.exit_code == ExitCode.INVALID
    assert "invalid config name" in result.stderr
    assert service.requests == []


def test_show_prints_what_is_running(service: Script) -> None:
    """Without ``--format`` the row is shown, one field per line, and no document is fetched."""
    service.answer(ROW)
    result = run(service, "show", "orders")
    assert result.stdout.splitlines() == [
        "NAME\torders",
        "ENVIRONMENT\tprod",
        "LABEL\tmain",
        "VERSION\t3",
        "STATE\trunning",
        "CHANGED BY\t1",
        "AT\t2026-01-02T03:04:05+00:00",
        "REVISION\t17",
    ]
    assert service.request.path == "/api/v1/manage/configs/orders"
    assert json.loads(run(service, "show", "orders", "--json").stdout) == ROW


def test_show_with_a_format_prints_the_document_unchanged(service: Script) -> None:
    """The document's bytes go to stdout as they come, of the version that was asked for."""
    service.body = b'{"a":\xff}'
    result = run(service, "show", "orders", "--format", "env", "--version", "2", "-e", "prod")
    assert result.stdout_bytes == b'{"a":\xff}'
    assert service.request.path == "/api/v1/service/configs/orders/formatted"
    assert service.request.query == {"format": ["env"], "version": ["2"], "environment": ["prod"]}


def test_list_and_history_print_tab_separated_lines_into_a_pipe(service: Script) -> None:
    """Without a terminal there is a header line and one line per row, in columns separated by tabs."""
    service.answer({"configs": [ROW, ROW | {"deleted": True}]})
    assert run(service, "list").stdout.splitlines() == [
        "NAME\tENVIRONMENT\tLABEL\tVERSION\tSTATE\tCHANGED BY\tAT",
        "orders\tprod\tmain\t3\trunning\t1\t2026-01-02T03:04:05+00:00",
        "orders\tprod\tmain\t3\tdeleted\t1\t2026-01-02T03:04:05+00:00",
    ]
    service.answer(
        {"versions": [ROW | {"kind": "rolled_back", "source_version": 1, "state": "running", "savepoints": ["a", "b"]}]}
    )
    assert run(service, "history", "orders").stdout.splitlines() == [
        "VERSION\tSTATE\tKIND\tFROM\tBY\tAT\tREVISION\tNAMES",
        "3\trunning\trolled_back\t1\t1\t2026-01-02T03:04:05+00:00\t17\ta b",
    ]
    assert service.requests[-1].path == "/api/v1/manage/configs/orders/history"


@pytest.mark.parametrize(
    "args",
    [
        ("list",),
        ("history", "orders"),
        ("rollback", "orders", "1"),
        ("delete", "orders", "--yes"),
        ("publish", "orders", "-"),
        ("draft", "show", "orders"),
        ("draft", "set", "orders", "-"),
        ("draft", "patch", "orders", "-"),
        ("draft", "discard", "orders", "--yes"),
        ("draft", "publish", "orders"),
        ("draft", "revert", "orders"),
        ("diff", "orders"),
        ("schema", "show", "orders"),
        ("schema", "set", "orders", "-"),
        ("schema", "remove", "orders", "--yes"),
        ("schema", "history", "orders"),
        ("token", "list"),
        ("token", "create", "x"),
        ("token", "revoke", "7"),
        ("token", "rotate-key", "7"),
    ],
)
def test_json_prints_the_answer_of_the_service(service: Script, args: tuple[str, ...]) -> None:
    """With ``--json`` stdout holds the service's JSON and nothing else, for every command over HTTP."""
    service.answer({"whatever": ["the", {"service": "says"}]})
    result = run(service, *args, "--json", stdin=b"{}")
    assert json.loads(result.stdout) == {"whatever": ["the", {"service": "says"}]}


def test_rollback_names_the_version(service: Script) -> None:
    """The version travels in the body, the condition in its header."""
    service.answer(ROW | {"changed": True}, 201)
    assert run(service, "rollback", "orders", "1", "--if-match", "2").exit_code == 0
    sent = service.request
    assert (sent.method, sent.path) == ("POST", "/api/v1/manage/configs/orders/rollback")
    assert json.loads(sent.body) == {"version": 1}
    assert sent.headers["If-Match"] == '"2"'


@pytest.mark.parametrize(
    ("args", "method", "path", "query", "body"),
    [
        (("draft", "show", "orders"), "GET", "draft", {}, b""),
        (("draft", "show", "orders", "--document"), "GET", "draft/document", {}, b""),
        (("draft", "set", "orders", "-", "--base", "0"), "PUT", "draft", {"base": ["0"]}, b"{ }"),
        (("draft", "patch", "orders", "-"), "PATCH", "draft", {}, b"{ }"),
        (("draft", "discard", "orders", "--yes"), "DELETE", "draft", {}, b""),
        (("draft", "publish", "orders"), "POST", "draft/publish", {}, b""),
        (("draft", "revert", "orders", "--version", "2"), "POST", "draft/revert", {}, b'{"version": 2}'),
        (("diff", "orders"), "GET", "diff", {"from": ["running"], "to": ["staged"]}, b""),
        (("schema", "show", "orders", "--version", "2"), "GET", "schema", {"version": ["2"]}, b""),
        (("schema", "set", "orders", "-"), "PUT", "schema", {}, b"{ }"),
        (("schema", "remove", "orders", "--yes"), "DELETE", "schema", {}, b""),
        (("schema", "history", "orders"), "GET", "schema/history", {}, b""),
    ],
)
def test_commands_of_drafts_and_schemas_send_what_they_say(
    service: Script, args: tuple[str, ...], method: str, path: str, query: dict[str, list[str]], body: bytes
) -> None:
    """One request each, to the config's own route, with files byte for byte."""
    service.answer(ROW | {"base": 1, "number": 1, "differences": [], "schemas": []})
    result = run(service, *args, "-e", "prod", stdin=b"{ }")
    assert (result.exit_code, result.stderr) == (0, "")
    sent = service.request
    assert (sent.method, sent.path) == (method, f"/api/v1/manage/configs/orders/{path}")
    assert sent.query == {"environment": ["prod"]} | query
    assert sent.body == body


def test_drafts_of_several_configs_are_published_in_one_request(service: Script) -> None:
    """In the order of the names, each with the version behind its ``=``; one line is printed for each."""
    service.answer({"published": [ROW | {"changed": True}, ROW | {"name": "billing", "changed": False}]}, 201)
    result = run(service, "draft", "publish", "orders=4", "billing", "-e", "prod")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"orders (prod, main): version {ROW['version']}, revision {ROW['revision']}",
        f"billing (prod, main): unchanged, still version {ROW['version']}",
    ]
    assert (service.request.method, service.request.path) == ("POST", "/api/v1/manage/drafts/publish")
    assert json.loads(service.request.body) == {
        "drafts": [
            {"name": "orders", "if_match": 4, "environment": "prod", "label": None},
            {"name": "billing", "if_match": None, "environment": "prod", "label": None},
        ]
    }
    assert json.loads(run(service, "draft", "publish", "orders", "billing", "--json").stdout) == json.loads(
        service.body
    )


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (("publish", "orders", "-"), "query"),
        (("draft", "publish", "orders"), "query"),
        (("draft", "publish", "orders", "billing"), "body"),
        (("rollback", "orders", "1"), "body"),
    ],
)
def test_whatever_publishes_takes_a_moment_to_come(service: Script, args: tuple[str, ...], where: str) -> None:
    """It is sent as it was typed, and the answer is told as what is to come."""
    later = "2030-01-31T12:00:00+00:00"
    row = ROW | {"changed": True, "scheduled": True, "valid_from": later}
    service.answer(row | {"published": [row]}, 201)
    result = run(service, *args, "--valid-from", later, stdin=b"{}")
    assert result.stdout == f"orders (prod, main): version 3, revision 17, runs from {later}\n"
    sent = service.request
    assert (sent.query.get("valid_from") if where == "query" else [json.loads(sent.body)["valid_from"]]) == [later]


@pytest.mark.parametrize(
    ("args", "method", "path", "body"),
    [
        (("savepoint", "set", "orders", "v-1"), "PUT", "savepoints/v-1", {"version": None, "move": False}),
        (
            ("savepoint", "set", "orders", "v-1", "--version", "2", "--move"),
            "PUT",
            "savepoints/v-1",
            {"version": 2, "move": True},
        ),
        (("savepoint", "list", "orders"), "GET", "savepoints", None),
        (("savepoint", "remove", "orders", "v-1", "--yes"), "DELETE", "savepoints/v-1", None),
        (("rollback", "orders", "v-1"), "POST", "rollback", {"version": "v-1"}),
        (("draft", "revert", "orders", "--version", "v-1"), "POST", "draft/revert", {"version": "v-1"}),
    ],
)
def test_savepoints_are_sent_as_names_of_versions(
    service: Script, args: tuple[str, ...], method: str, path: str, body: object
) -> None:
    """One request each; what cannot be a name is refused unsent."""
    service.answer(ROW | {"savepoint": "v-1", "changed": True, "savepoints": [], "base": 1})
    result = run(service, *args)
    assert (result.exit_code, result.stderr) == (0, "")
    sent = service.request
    assert (sent.method, sent.path) == (method, f"/api/v1/manage/configs/orders/{path}")
    assert (json.loads(sent.body) if sent.body else None) == body
    for bad in ("0", "-1", "1x", "running", "a/b", ""):
        assert run(service, "rollback", "orders", "--", bad).exit_code == 2, bad
    assert run(service, "savepoint", "set", "orders", "1x").exit_code == 6
    assert len(service.requests) == 1


OLD = [ROW | {"version": number, "document": '{"a": 1}'} for number in (1, 2)]
GONE = {"name": "orders", "environment": "prod", "label": "main", "versions": [1, 2]}


def test_an_archive_writes_the_documents_down_before_they_go(service: Script, tmp_path: Path) -> None:
    """Appended to a file for its owner alone; then exactly these versions are archived, with the same cut-off."""
    service.answer({"candidates": OLD, "after": None, "archived": [GONE | {"revision": 20}]})
    file = tmp_path / "old.jsonl"
    for _ in range(2):
        result = run(service, "archive", "--before", "2026-01-01", "--name", "o*", "--to", str(file), "--yes")
        assert result.stdout.splitlines() == [
            "NAME\tENVIRONMENT\tLABEL\tVERSIONS\tREVISION",
            "orders\tprod\tmain\t1 2\t20",
            "2 documents were archived",
        ]
    asked, archived, *_ = service.requests
    assert json.loads(asked.body) == {
        "before": "2026-01-01T00:00:00Z",
        "name": "o*",
        "after": None,
        "limit": 100,
        "documents": True,
    }
    assert (archived.method, archived.path) == ("POST", "/api/v1/manage/archive")
    assert json.loads(archived.body) == {"before": "2026-01-01T00:00:00Z", "configs": [GONE]}
    assert [json.loads(line) for line in file.read_text().splitlines()] == OLD * 2
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_archive_that_cannot_be_written_down_archives_nothing(service: Script, tmp_path: Path) -> None:
    """Nothing is asked to go; without a terminal it is not asked for confirmation, and refuses."""
    service.answer({"candidates": OLD, "after": None, "archived": []})
    result = run(service, "archive", "--before", "2026-01-01", "--to", str(tmp_path), "--yes")
    assert (result.exit_code, len(service.requests)) == (2, 1)
    assert run(service, "archive", "--before", "2026-01-01").exit_code == 2
    assert len(service.requests) == 1


def test_a_dry_run_of_an_archive_changes_nothing(service: Script, tmp_path: Path) -> None:
    """It asks what would go and no more; no file is written."""
    service.answer({"candidates": OLD, "after": None})
    file = tmp_path / "old.jsonl"
    args = ("archive", "--before", "2026-01-01T12:00:00+02:00", "--to", str(file), "--dry-run")
    assert run(service, *args).stdout.splitlines()[-1] == "2 documents would be archived"
    assert json.loads(run(service, *args, "--json").stdout) == {"archived": [GONE], "dry_run": True}
    assert {request.path for request in service.requests} == {"/api/v1/manage/archive/candidates"}
    assert json.loads(service.requests[0].body)["before"] == "2026-01-01T12:00:00+02:00"
    assert not file.exists()


def test_a_document_is_shown_by_its_savepoint(service: Script) -> None:
    """The name is looked up first, because services are asked by number; an unknown one exits with 4."""
    service.answer({"savepoints": [ROW | {"savepoint": "v-1", "version": 7}]})
    assert run(service, "show", "orders", "--format", "json", "--version", "v-1").exit_code == 0
    assert [request.path.rsplit("/", 1)[1] for request in service.requests] == ["savepoints", "formatted"]
    assert service.requests[1].query["version"] == ["7"]
    assert run(service, "show", "orders", "--format", "json", "--version", "other").exit_code == 4


def test_schedules_are_listed_and_cancelled(service: Script) -> None:
    """As rows, and with a confirmation that ``--yes`` gives."""
    later = "2030-01-31T12:00:00+00:00"
    service.answer({"schedules": [ROW | {"valid_from": later}]})
    assert run(service, "schedule", "list").stdout.splitlines() == [
        "NAME\tENVIRONMENT\tLABEL\tVERSION\tRUNS FROM\tCHANGED BY\tAT",
        f"orders\tprod\tmain\t3\t{later}\t1\t2026-01-02T03:04:05+00:00",
    ]
    assert json.loads(run(service, "schedule", "list", "--json").stdout) == json.loads(service.body)
    service.answer(ROW | {"valid_from": later})
    assert run(service, "schedule", "cancel", "orders").exit_code == 2
    result = run(service, "schedule", "cancel", "orders", "--yes")
    assert result.stdout == f"orders (prod, main): version 3 does not run from {later} on\n"
    assert (service.requests[-1].method, service.requests[-1].path) == (
        "DELETE",
        "/api/v1/manage/configs/orders/schedule",
    )


def test_a_condition_on_one_of_several_drafts_is_written_behind_its_name(service: Script) -> None:
    """``NAME=N`` is the condition of one draft too; anything that could be read in two ways is refused unsent."""
    service.answer(ROW | {"changed": True})
    assert run(service, "draft", "publish", "orders=2").exit_code == 0
    assert service.request.headers["If-Match"] == '"2"'
    for args in (("a", "b", "--if-match", "1"), ("a=1", "--if-match", "1"), ("a=", "b"), ("a=0",), ("a=x",)):
        assert run(service, "draft", "publish", *args).exit_code == 2, args
    assert len(service.requests) == 1


@pytest.mark.parametrize(("patch", "kind"), [(b'{"a": 1}', "merge-patch"), (b" \n[]", "json-patch")])
def test_the_kind_of_a_patch_is_told_by_its_first_character(service: Script, patch: bytes, kind: str) -> None:
    """A merge patch of a config is an object and a JSON Patch is an array, so nobody has to say which it is."""
    service.answer(ROW | {"base": 3})
    assert run(service, "draft", "patch", "orders", "-", stdin=patch).stdout == (
        "orders (prod, main): draft on version 3\n"
    )
    assert service.request.headers["Content-Type"] == f"application/{kind}+json"


def test_validating_a_draft_tells_every_place_and_exits_by_the_outcome(service: Script) -> None:
    """0 when it could be published, 6 when it does not fit, 5 when another version came in between."""
    told = ROW | {"base": 3, "newest": 3, "outdated": False, "valid": True, "schema_number": 2, "violations": []}
    service.answer(told)
    assert run(service, "draft", "validate", "orders").stdout == "orders (prod, main): the draft fits its schema\n"
    service.answer(told | {"valid": False, "violations": [{"path": "/db/port", "keyword": "type"}, {"path": ""}]})
    result = run(service, "draft", "validate", "orders")
    assert (result.exit_code, result.stdout) == (ExitCode.INVALID, "/db/port: type\nthe document: -\n")
    service.answer(told | {"outdated": True, "newest": 4})
    result = run(service, "draft", "validate", "orders")
    assert result.exit_code == ExitCode.CONFLICT
    assert "version 3" in result.stderr
    assert "version 4" in result.stderr


def test_a_difference_is_a_table_of_places_with_values_as_json(service: Script) -> None:
    """What was added has no old value and what was removed no new one; null is a value."""
    service.answer(
        {
            "differences": [
                {"op": "added", "path": "/é", "new": {"a": "ü"}},
                {"op": "removed", "path": "/list/1", "old": None},
                {"op": "changed", "path": "", "old": 1, "new": 1.0},
            ]
        }
    )
    result = run(service, "diff", "orders", "--from", "2", "--to", "running@prod")
    assert result.stdout.splitlines() == [
        "OP\tPATH\tOLD\tNEW",
        'added\t/é\t-\t{"a": "ü"}',
        "removed\t/list/1\tnull\t-",
        "changed\t\t1\t1.0",
    ]
    assert service.request.query == {"from": ["2"], "to": ["running@prod"]}


def test_delete_with_yes_does_not_ask(service: Script) -> None:
    """``--yes`` deletes at once; without it and without a terminal nothing is deleted (see wrong usage)."""
    service.answer(ROW | {"deleted": True})
    result = run(service, "delete", "orders", "--yes")
    assert result.stdout == "orders (prod, main): deleted, as version 3\n"
    assert service.request.method == "DELETE"


@pytest.mark.parametrize(("reply", "code"), [("y\n", 0), ("n\n", ExitCode.UNEXPECTED)])
def test_delete_asks_on_a_terminal(service: Script, monkeypatch: pytest.MonkeyPatch, reply: str, code: int) -> None:
    """On a terminal the operator is asked, and a no deletes nothing."""
    monkeypatch.setattr("config_service.cli.documents._is_interactive", lambda: True)
    service.answer(ROW | {"deleted": True})
    result = run(service, "delete", "orders", stdin=reply.encode())
    assert result.exit_code == code
    assert "Stop serving orders" in result.output
    assert len(service.requests) == (1 if code == 0 else 0)


def test_token_create_prints_secret_and_key_once(service: Script) -> None:
    """The fields come one per line on stdout; the reminder goes to stderr."""
    service.answer(MINTED, 201)
    args = ("token", "create", "orders", "-e", "prod", "--scope", "orders@prod:read", "--scope", "b@*:write")
    result = run(service, *args, "--expires-in", "2w")
    assert "secret\tcst_fresh'secret\n" in result.stdout
    assert f"key\t{'ab' * 32}\n" in result.stdout
    assert "shown this once" in result.stderr
    assert "cst_" not in result.stderr
    sent = json.loads(service.request.body)
    assert sent["expires_at"].endswith("+00:00")
    assert sent | {"expires_at": ""} == {
        "name": "orders",
        "environment": "prod",
        "scopes": ["orders@prod:read", "b@*:write"],
        "expires_at": "",
    }


def test_token_create_leaves_defaults_to_the_service(service: Script) -> None:
    """What is not given is not sent, so that the service's own defaults hold."""
    service.answer(MINTED, 201)
    run(service, "token", "create", "orders")
    assert json.loads(service.request.body) == {"name": "orders"}


def test_token_create_export_prints_three_lines_for_a_shell(service: Script) -> None:
    """``--export`` prints what ``ConfigClient.from_env()`` reads, quoted for a shell."""
    service.answer(MINTED, 201)
    assert run(service, "token", "create", "orders", "--export").stdout.splitlines() == [
        f"export CONFIG_SERVICE_HOST={service.url}",
        """export CONFIG_SERVICE_TOKEN='cst_fresh'"'"'secret'""",
        f"export CONFIG_SERVICE_KEY={'ab' * 32}",
    ]


def test_token_list_tells_the_state(service: Script) -> None:
    """A token is active, expired or revoked; revoked wins."""
    past, future = "2001-01-01T00:00:00+00:00", "2999-01-01T00:00:00Z"
    rows = [
        MINTED,
        MINTED | {"expires_at": future},
        MINTED | {"expires_at": past},
        MINTED | {"expires_at": past, "revoked_at": past},
        MINTED | {"expires_at": "never"},
    ]
    service.answer({"tokens": rows})
    lines = [line.split("\t") for line in run(service, "token", "list").stdout.splitlines()]
    assert lines[0] == ["ID", "NAME", "ENVIRONMENT", "SCOPES", "STATE", "CREATED", "EXPIRES"]
    assert [line[4] for line in lines[1:]] == ["active", "active", "expired", "revoked", "active"]


REKEYED = MINTED | {
    "key_id": "0f1e2d3c4b5a6978",
    "keys": [
        {"id": "0f1e2d3c4b5a6978", "retires_at": None},
        {"id": "8877665544332211", "retires_at": "2026-01-03T03:04:05+00:00"},
    ],
}


@pytest.mark.parametrize(
    ("overlap", "sent"),
    [
        ((), {}),
        (("--overlap", "0"), {"overlap_seconds": 0}),
        (("--overlap", "0h"), {"overlap_seconds": 0}),
        (("--overlap", "90s"), {"overlap_seconds": 90}),
        (("--overlap", "15m"), {"overlap_seconds": 900}),
        (("--overlap", "24h"), {"overlap_seconds": 86_400}),
        (("--overlap", "7d"), {"overlap_seconds": 604_800}),
        (("--overlap", "2w"), {"overlap_seconds": 1_209_600}),
    ],
)
def test_token_rotate_key_asks_for_an_overlap_in_seconds(
    service: Script, overlap: tuple[str, ...], sent: dict[str, int]
) -> None:
    """A duration becomes seconds; without one the service decides."""
    service.answer(REKEYED, 201)
    assert run(service, "token", "rotate-key", "7", *overlap).exit_code == 0
    assert (service.request.method, service.request.path) == ("POST", "/api/v1/manage/tokens/7/key")
    assert json.loads(service.request.body) == sent


def test_token_rotate_key_prints_the_key_once_and_says_until_when_the_old_one_is_valid(service: Script) -> None:
    """The key is on stdout, for programs too; what a person has to do next is on stderr, without the key."""
    service.answer(REKEYED, 201)
    result = run(service, "token", "rotate-key", "7")
    fields = dict(line.split("\t") for line in result.stdout.splitlines())
    assert fields == {"id": "7", "name": "orders", "key_id": "0f1e2d3c4b5a6978", "key": "ab" * 32}
    assert "key 8877665544332211 stays valid until 2026-01-03T03:04:05+00:00" in result.stderr
    assert "CONFIG_SERVICE_KEY" in result.stderr
    assert "abab" not in result.stderr
    assert json.loads(run(service, "token", "rotate-key", "7", "--json").stdout) == REKEYED


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ([{"id": "0f1e2d3c4b5a6978", "retires_at": None}], "No older key is valid any more."),
        (None, ""),
        (["0f1e2d3c4b5a6978"], "No older key"),
    ],
)
def test_token_rotate_key_says_when_no_older_key_is_left(service: Script, keys: object, told: str) -> None:
    """And nothing of older keys when the service does not tell; a surprising answer is no failure."""
    service.answer(REKEYED | {"keys": keys}, 201)
    result = run(service, "token", "rotate-key", "7", "--overlap", "0")
    assert result.exit_code == 0
    assert result.stderr.startswith(told or "The key is shown this once")


def test_token_revoke_names_the_id(service: Script) -> None:
    """Revoking is a DELETE of the token's id."""
    assert run(service, "token", "revoke", "7").stdout == "token 7: revoked\n"
    assert (service.request.method, service.request.path) == ("DELETE", "/api/v1/manage/tokens/7")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.INVALID),
        (401, ExitCode.DENIED),
        (403, ExitCode.DENIED),
        (404, ExitCode.NOT_FOUND),
        (405, ExitCode.INVALID),
        (408, ExitCode.UNAVAILABLE),
        (409, ExitCode.CONFLICT),
        (412, ExitCode.CONFLICT),
        (413, ExitCode.INVALID),
        (422, ExitCode.INVALID),
        (429, ExitCode.UNAVAILABLE),
        (500, ExitCode.UNAVAILABLE),
        (503, ExitCode.UNAVAILABLE),
        (507, ExitCode.UNAVAILABLE),
    ],
)
def test_a_refusal_is_the_services_sentence_and_an_exit_code_by_kind(
    service: Script, status: int, code: ExitCode
) -> None:
    """The service's message goes to stderr as it is, stdout stays empty, the code tells the kind.

    Whose token is refused is told what to do about it: the service cannot know how its command is called.
    """
    service.refuse(status, "orders: version 4 is running, not 3")
    result = run(service, "publish", "orders", "-", stdin=b"{}")
    assert result.exit_code == code
    hint = {401: "CONFIG_SERVER_TOKEN", 403: "config-service token create"}.get(status)
    told, _, remedy = result.stderr.removesuffix("\n").partition("; ")
    assert told == "error: orders: version 4 is running, not 3"
    assert (hint in remedy) if hint else not remedy
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>not here</html>"),
        (404, b'{"detail": "Not Found"}'),
        (403, b'{"error": "go away"}'),
        (302, b""),
        (200, b"<html>hello</html>"),
        (200, b"[]"),
        (200, b"[" * 100_000),
    ],
)
def test_an_answer_of_a_stranger_is_told_as_such(service: Script, status: int, body: bytes) -> None:
    """What no config service answers means a wrong address: code 7 (a stranger's 404 is not a missing config)."""
    service.status, service.body = status, body
    service.headers["Location"] = "http://elsewhere.invalid/"
    result = run(service, "list")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "CONFIG_SERVER_URL" in result.stderr
    assert len(service.requests) == 1


@pytest.mark.parametrize("answer", [{}, {"configs": {}}, {"configs": [1]}])
def test_an_answer_without_its_list_is_refused(service: Script, answer: object) -> None:
    """An object of another shape is not taken for an empty list."""
    service.answer(answer)
    assert run(service, "list").exit_code == ExitCode.UNAVAILABLE


def test_a_field_that_is_not_sent_is_a_dash(service: Script) -> None:
    """A service of another age may leave fields out; showing the others goes on."""
    service.answer({"configs": [{"name": "orders"}]})
    assert run(service, "list").stdout.splitlines()[1] == "orders\t-\t-\t-\trunning\t-\t-"


def test_an_unreachable_service_ends_with_7() -> None:
    """Nobody listening is told in one sentence with the address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run(Script(url=f"http://127.0.0.1:{unused.getsockname()[1]}"), "list")
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "no answer from http://127.0.0.1:" in result.stderr
    assert "is the service running" in result.stderr
    assert "CONFIG_SERVER_URL" in result.stderr
    assert "CONFIG_SERVER_CA" not in result.stderr


@pytest.mark.parametrize("arguments", [("list",), ("audit", "verify")])
def test_no_answer_over_tls_points_at_the_certificates(arguments: tuple[str, ...]) -> None:
    """A certificate that one side refuses ends the connection, and looks like a service that does not run."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run(Script(url=f"https://127.0.0.1:{unused.getsockname()[1]}"), *arguments)
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "CONFIG_SERVER_CA" in result.stderr
    assert "CONFIG_SERVER_CLIENT_CERT" in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        " ",
        "localhost:8080",
        "ftp://host",
        "http://",
        "http://u:hunter2@host",
        "http://h/?hunter2=1",
        "http://h:hunter2",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    """A wrong address is wrong usage; it is not repeated, because it may hold a password."""
    result = run(Script(url=url), "list")
    assert result.exit_code == ExitCode.USAGE
    assert "CONFIG_SERVER_URL" in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("token", ["", "  ", "can ary", "can\nary", "can\x00ary", "canäry", "can\u202eary"])
def test_a_token_that_cannot_be_one_is_refused_without_repeating_it(service: Script, token: str) -> None:
    """A missing or mangled token is told by the name of its variable, and nothing is sent."""
    result = run(service, "list", "--token", token)
    assert result.exit_code == ExitCode.USAGE
    assert "CONFIG_SERVER_TOKEN" in result.stderr
    assert "ary" not in result.stderr
    assert service.requests == []


def test_space_around_a_token_is_dropped(service: Script) -> None:
    """A line break that came along with a copied token does no harm."""
    run(service, "token", "revoke", "1", "--token", f" {TOKEN}\n")
    assert service.request.headers["X-Service-Token"] == TOKEN


def test_a_failed_call_has_no_request_in_its_context() -> None:
    """The exception of the HTTP library carries the token in its request; ours does not carry that exception."""
    with ManageApi("http://127.0.0.1:1", TOKEN) as api, pytest.raises(CommandError) as caught:
        api.call("GET", "/api/v1/manage/configs")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_message_cannot_drive_the_terminal(service: Script) -> None:
    """Control characters in a message are spelled out, and rich markup in it stays text."""
    service.refuse(400, "a\x1b[2Jb\r\n[red]c[/red]\u202e")
    assert run(service, "list").stderr == "error: a\\x1b[2Jb\\r\\n[red]c[/red]\\u202e\n"


@pytest.mark.parametrize(
    ("url", "trusts"),
    [
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
        ("https://config.example.org", True),
    ],
)
def test_a_request_to_this_machine_never_goes_through_a_proxy(url: str, trusts: bool) -> None:
    """Proxy variables are honoured for other machines only: a proxy would see the token of a local service."""
    with ManageApi(url, TOKEN) as api:
        assert api._http.trust_env is trusts


def on_terminal(service: Script, *args: str) -> str:
    """Return what a command writes to a real terminal of 80 columns without colours."""
    controller, terminal = os.openpty()
    variables = {"CONFIG_SERVER_URL": service.url, "CONFIG_SERVER_TOKEN": TOKEN}
    child = subprocess.Popen(
        [sys.executable, "-m", "config_service", *args],
        env=os.environ | variables | {"PYTHONPATH": str(ROOT), "TERM": "dumb", "COLUMNS": "80"},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
    )
    os.close(terminal)
    written = b""
    try:
        while chunk := os.read(controller, 4096):
            written += chunk
    except OSError:
        pass  # Linux says EIO when the last writer has closed a terminal
    os.close(controller)
    assert child.wait(30) == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.integration
def test_a_real_terminal_gets_an_aligned_table(service: Script) -> None:
    """On a terminal the columns line up, without tabs."""
    service.answer({"versions": [ROW | {"kind": "published"}]})
    assert [line.rstrip() for line in on_terminal(service, "history", "orders").splitlines()] == [
        "VERSION  STATE  KIND       FROM  BY  AT                         REVISION  NAMES",
        "3        -      published  -     1   2026-01-02T03:04:05+00:00  17        -",
    ]


@pytest.mark.integration
def test_a_document_on_a_real_terminal_ends_its_line(service: Script) -> None:
    """Only on a terminal a line end is added, and only when the document has none."""
    for body in (b'{"a":1}', b'{"a":1}\n'):
        service.body = body
        assert on_terminal(service, "show", "orders", "--format", "json") == '{"a":1}\n'


def test_a_command_waits_while_its_token_has_used_up_its_rate(service: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the service says; then it asks the same again. Other refusals of that kind are told at once."""
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            service.answer(ROW)

    monkeypatch.setattr("config_service.cli.manage.time.sleep", sleep)
    service.headers["Retry-After"] = "7"
    service.answer({"error": {"code": "rate_limited", "message": "too fast"}}, 429)
    assert run(service, "show", "orders").exit_code == 0
    assert waited == [7, 7, 7]
    service.answer({"error": {"code": "rate_limited", "message": "too fast"}}, 429)
    waited[:] = [0] * 3
    refused = run(service, "show", "orders")
    assert (refused.exit_code, refused.stderr) == (7, "error: too fast\n")
    assert sum(waited) <= 120
    service.answer({"error": {"code": "too_many_failures", "message": "wrong token"}}, 429)
    waited.clear()
    assert run(service, "show", "orders").exit_code == 7
    assert waited == []
