"""What surrounds the code: requirements, versions, the Makefile, the container, the checks of .ci.

Reads files of the repository and runs no tool.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from config_service.settings import PREFIX, Settings, variable

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))
TARGETS = [
    *["install", "test", "unit", "integration", "e2e", "lint", "fmt", "typecheck", "security", "bench", "build"],
    *["docker-up", "docker-down", "demo", "clean", "help"],
]
CLEAN = {"name": "httpx", "version": "0.28.1", "vulns": []}
FLAWED = {"name": "mako", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich (15.0.0)"}
WHEEL = [
    "config_client/__init__.py",
    "config_client/py.typed",
    "config_service/__init__.py",
    "config_service/py.typed",
    "config_service/store/migrations/env.py",
    "config_service/store/migrations/versions/0001_first.py",
    "python_config_client-1.0.0.dist-info/RECORD",
    "python_config_client-1.0.0.dist-info/licenses/LICENSE",
]


def logical_lines(path: Path) -> list[str]:
    """Return the entries of a requirements file, each with its continuation lines joined."""
    joined = path.read_text().replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def pins(path: Path) -> dict[str, list[Requirement]]:
    """Return name → pinned requirements; more than one where the marker decides."""
    found: dict[str, list[Requirement]] = {}
    for line in logical_lines(path):
        requirement = Requirement(line.partition(" --hash")[0])
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group, included groups and all."""
    entries = PROJECT["dependency-groups"][name]
    return [
        requirement
        for entry in entries
        for requirement in (group(entry["include-group"]) if isinstance(entry, dict) else [entry])
    ]


def env_names(path: Path) -> dict[str, str]:
    """Return the settings named by an environment file and the values it gives them."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", path.read_text(), flags=re.MULTILINE))


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A script of .ci as a module, named by the parameter."""
    spec = importlib.util.spec_from_file_location(f"ci_{request.param}", ROOT / ".ci" / f"{request.param}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    """Everything that the compose file can start."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert list(found) == ["config-service", "replica-1", "replica-2", "postgres"]
    return found


@pytest.fixture(params=["config-service", "replica-1", "replica-2"])
def service(services: dict[str, dict[str, Any]], request: pytest.FixtureRequest) -> dict[str, Any]:
    """A service of the compose file that is ours."""
    return services[request.param]


# --- requirements ---


def test_there_is_a_list_for_every_way_to_install() -> None:
    """Development, the benchmarks' peer, the SDK's tests and the server each have theirs, and no other lies about."""
    assert [path.name for path in REQUIREMENTS] == ["dev.txt", "peer.txt", "sdk-test.txt", "server.txt"]


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_hashed(path: Path) -> None:
    """Each entry names one exact version, at least one SHA-256, and nothing else."""
    entry = re.compile(r"[a-z0-9][a-z0-9-]*==[0-9][0-9A-Za-z.]*( ; [^:]+?)?( +--hash=sha256:[0-9a-f]{64})+")
    lines = logical_lines(path)
    assert lines
    assert [line for line in lines if not entry.fullmatch(line)] == []


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_no_requirements_file_says_where_packages_come_from(path: Path) -> None:
    """No index, no find-links, no download address: where packages come from is the machine's affair."""
    text = path.read_text()
    assert "://" not in text
    assert " @ " not in text
    assert not re.search(r"^\s*-", re.sub(r"^\s+--hash=.*$", "", text, flags=re.MULTILINE), flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["server.txt", "sdk-test.txt"])
def test_what_is_deployed_is_what_was_tested(name: str) -> None:
    """The smaller lists pin the versions of the development list: none of their own."""
    tested = {key: {str(pin.specifier) for pin in found} for key, found in pins(ROOT / "requirements/dev.txt").items()}
    other = {key: {str(pin.specifier) for pin in found} for key, found in pins(ROOT / "requirements" / name).items()}
    assert {key: versions for key, versions in other.items() if not versions <= tested.get(key, set())} == {}


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("dev.txt", [*PROJECT["project"]["optional-dependencies"]["server"], *group("dev")]),
        ("server.txt", [*PROJECT["project"]["optional-dependencies"]["server"], *group("build")]),
        ("sdk-test.txt", group("sdk-test")),
    ],
)
def test_the_pins_satisfy_what_the_project_declares(name: str, declared: list[str]) -> None:
    """Nothing declared is missing from the list or pinned outside its range: the list is not older than pyproject."""
    locked = pins(ROOT / "requirements" / name)
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], *declared]
    for requirement in map(Requirement, wanted):
        found = locked.get(canonicalize_name(requirement.name), [])
        versions = [Version(str(pin.specifier).removeprefix("==")) for pin in found]
        assert versions, f"{requirement.name} is not pinned: make lock"
        assert all(version in requirement.specifier for version in versions), f"{requirement} is outdated: make lock"


# --- one version, one licence ---


def test_the_version_is_the_same_everywhere() -> None:
    """pyproject.toml, the newest release of the changelog and the installed distribution agree."""
    version = PROJECT["project"]["version"]
    releases = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert releases[0] == version
    assert importlib.metadata.version("python-config-client") == version


def test_releases_are_listed_newest_first_below_unreleased() -> None:
    """The changelog keeps the order of Keep a Changelog, with a place for what comes next."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:] == sorted(headings[1:], key=Version, reverse=True)


def test_the_licence_is_mit_in_file_and_metadata() -> None:
    """What the metadata promises is the text that is shipped."""
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n\nCopyright (c) 2026 the python-config-client maintainers\n")
    assert PROJECT["project"]["license"] == "MIT"


# --- the Makefile ---


@pytest.mark.parametrize("target", TARGETS)
def test_every_promised_target_exists_and_is_explained(target: str) -> None:
    """Each target is phony, so that a file of its name cannot hide it, and appears in `make help`."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert target in phony[1].split()
    assert re.search(rf"^{target}:.*  ## \S", text, re.MULTILINE)


# --- the container and its settings ---


def test_the_container_is_reachable_from_this_machine_only(service: dict[str, Any]) -> None:
    """Deny by default: whatever is published is published on loopback."""
    assert service["ports"]
    assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])


def test_the_container_has_no_default_credentials(service: dict[str, Any]) -> None:
    """The master key must come from outside, and so does whatever else is secret, if it is wanted."""
    environment = service["environment"]
    assert isinstance(environment, dict)
    assert environment["CONFIG_SERVER_MASTER_KEY"].startswith("${CONFIG_SERVER_MASTER_KEY:?")
    secret = [value for name, value in environment.items() if re.search("TOKEN|PASSWORD|SECRET", name)]
    assert [value for value in secret if not re.fullmatch(r"\$\{[A-Z_]+:-\}", value)] == []


def test_the_container_may_change_nothing_but_its_data(service: dict[str, Any]) -> None:
    """An unprivileged user, a read-only file system, no capabilities, and one volume that outlives the container."""
    dockerfile = service["build"]["dockerfile_inline"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    on_sqlite = service["environment"]["CONFIG_SERVER_STORE_URL"].startswith("sqlite:")
    assert service["volumes"] == (["data:/data"] if on_sqlite else [])
    assert re.search(r"^USER (?!root|0)\w+$", dockerfile, re.MULTILINE)


def test_the_image_is_built_from_pinned_requirements_and_files_that_exist(service: dict[str, Any]) -> None:
    """Dependencies by hash, the project without dependencies or isolation; what is copied is in the repository."""
    dockerfile = service["build"]["dockerfile_inline"]
    installs = re.findall(r"pip install ([^&\n]*)", dockerfile)
    assert ["--require-hashes" in install for install in installs] == [True, False]
    assert "--no-deps --no-build-isolation ." in installs[1]
    copied = [path for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for path in line.split()]
    assert copied
    assert [path for path in copied if not (ROOT / path).exists()] == []


def test_the_settings_of_the_container_are_settings_that_the_example_explains(service: dict[str, Any]) -> None:
    """No setting is misspelt in one of the two places."""
    assert set(service["environment"]) - {"PGPASSWORD"} <= set(env_names(ROOT / ".env.example"))


def test_the_replicas_share_a_database_that_nobody_else_reaches(services: dict[str, dict[str, Any]]) -> None:
    """Started on demand, behind PostgreSQL, on ports of their own; its password has no default."""
    first, second, postgres = (services[name] for name in ("replica-1", "replica-2", "postgres"))
    assert {tuple(one["profiles"]) for one in (first, second, postgres)} == {("replicas",)}
    assert "profiles" not in services["config-service"]
    assert first | {"ports": second["ports"]} == second
    assert first["ports"] != second["ports"]
    assert first["environment"]["CONFIG_SERVER_STORE_URL"] == "postgresql://config@postgres/config"
    assert first["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "ports" not in postgres
    assert postgres["volumes"] == ["postgres:/var/lib/postgresql/data"]
    given = {first["environment"]["PGPASSWORD"], postgres["environment"]["POSTGRES_PASSWORD"]}
    assert given == {"${CONFIG_POSTGRES_PASSWORD:-}"}
    assert env_names(ROOT / ".env.example")["CONFIG_POSTGRES_PASSWORD"] == ""


def test_the_example_names_every_setting_of_the_service_with_its_default() -> None:
    """A setting cannot be added, renamed or given another default without the example saying so."""
    example = {name: value for name, value in env_names(ROOT / ".env.example").items() if name.startswith(PREFIX)}
    of_the_operator = {f"{PREFIX}{name}" for name in ("URL", "TOKEN", "CA", "CLIENT_CERT", "CLIENT_KEY")}
    fields = Settings.model_fields.items()
    defaults = {variable(name): "" if field.is_required() else str(field.default) for name, field in fields}
    assert {name: value for name, value in example.items() if name not in of_the_operator} == defaults


def test_the_example_settings_hold_no_secret() -> None:
    """Keys and tokens are left empty, so that nobody runs with one that the whole world knows."""
    given = {name: value for name, value in env_names(ROOT / ".env.example").items() if re.search("KEY|TOKEN", name)}
    assert given
    assert set(given.values()) == {""}


# --- the audit's verdict ---


@pytest.mark.parametrize("script", ["audit"], indirect=True)
def test_an_audit_of_everything_without_a_finding_is_clean(script: ModuleType) -> None:
    """Only when every package was looked up may the verdict be clean."""
    outcome = script.verdict(json.dumps({"dependencies": [CLEAN]}), "")
    assert outcome.text == "clean: no known vulnerability in 1 packages"
    assert not outcome.vulnerable


@pytest.mark.parametrize("script", ["audit"], indirect=True)
@pytest.mark.parametrize(
    ("report", "complaint", "said"),
    [
        (json.dumps({"dependencies": [CLEAN, SKIPPED]}), "No known vulnerabilities found", "1 of 2 packages"),
        (json.dumps({"dependencies": []}), "No known vulnerabilities found", "names no package"),
        ("", "Traceback\nConnectionError: failed to resolve", "failed to resolve"),
        ("[]", "", "no report"),
        ("", "", "no report"),
    ],
    ids=["package skipped", "nothing to audit", "database out of reach", "another report", "silence"],
)
def test_an_audit_that_did_not_happen_is_never_called_clean(
    script: ModuleType, report: str, complaint: str, said: str
) -> None:
    """Whatever keeps a package from being looked up is reported as "not audited", with the reason."""
    outcome = script.verdict(report, complaint)
    assert outcome.text.startswith("not audited: ")
    assert said in outcome.text
    assert not outcome.vulnerable


@pytest.mark.parametrize("script", ["audit"], indirect=True)
@pytest.mark.parametrize("others", [[], [CLEAN], [SKIPPED]], ids=["alone", "beside clean", "beside skipped"])
def test_a_known_vulnerability_fails_the_audit(script: ModuleType, others: list[object]) -> None:
    """A finding names package, advisory and remedy, and outweighs whatever else is in the report."""
    outcome = script.verdict(json.dumps({"dependencies": [*others, FLAWED]}), "")
    assert outcome.vulnerable
    assert outcome.text.startswith("vulnerable:\n  mako 1.0: PYSEC-1, fixed in 1.1")
    assert ("not audited: 1 of 2" in outcome.text) == (others == [SKIPPED])


# --- the look into the wheel ---


@pytest.mark.parametrize("script", ["check_wheel"], indirect=True)
def test_a_complete_wheel_has_no_faults(script: ModuleType) -> None:
    """The check accepts what it must."""
    assert script.faults(WHEEL) == []


@pytest.mark.parametrize("script", ["check_wheel"], indirect=True)
@pytest.mark.parametrize("name", [name for name in WHEEL if not name.endswith("RECORD")])
def test_a_wheel_that_lacks_a_part_is_refused(script: ModuleType, name: str) -> None:
    """Each part that must be there is missed when it is not."""
    wrong = script.faults([other for other in WHEEL if other != name])
    assert len(wrong) == 1
    assert wrong[0].startswith("lacks ")


@pytest.mark.parametrize("script", ["check_wheel"], indirect=True)
@pytest.mark.parametrize("name", ["tests/test_packaging.py", ".env", "config_client/__pycache__/client.pyc"])
def test_a_wheel_that_carries_more_is_refused(script: ModuleType, name: str) -> None:
    """Tests, settings and caches do not end up in users' environments."""
    assert script.faults([*WHEEL, name]) == [f"carries {name}"]
