"""The pytest plugin, as users meet it: in a pytest of its own, in a child process."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PLUGIN = "config_client.testing.plugin"


def run_pytest(folder: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``test`` with the plugin and no other one."""
    (folder / "test_application.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", PLUGIN, *arguments, "."],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.integration
def test_the_fixtures_serve_each_test_on_its_own(tmp_path: Path) -> None:
    """Each test gets an empty service; the environment leads ``from_env`` to it, and back after the test."""
    done = run_pytest(
        tmp_path,
        """
import os

import pytest

from config_client import ConfigClient, NotFoundError


def test_options(config_server):
    config_server.publish("orders", {"n": 1})
    with ConfigClient(config_server.options()) as client:
        assert client.get_raw("orders") == {"n": 1}


def test_environment(config_environment, config_server):
    assert config_environment is config_server
    with ConfigClient.from_env() as client, pytest.raises(NotFoundError):
        client.get_raw("orders")


def test_neither(pytestconfig):
    assert "CONFIG_SERVICE_HOST" not in os.environ
""",
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.integration
def test_the_fixtures_are_documented_where_pytest_shows_them(tmp_path: Path) -> None:
    """``pytest --fixtures`` lists them with what they are for."""
    shown = run_pytest(tmp_path, "", "--fixtures").stdout
    assert re.search(r"config_server.*\n +Run an in-memory config service for this test", shown)
    assert re.search(r"config_environment.*\n +Let ``ConfigClient.from_env\(\)``", shown)


@pytest.mark.integration
def test_the_plugin_brings_nothing_of_the_service_before_a_fixture_is_used() -> None:
    """It is imported in every run of pytest: sockets, routes and ciphers wait until a test asks for them."""
    program = f"""
import sys
import pytest
before = set(sys.modules)
import config_client
package = set(sys.modules)
import {PLUGIN}
print(sorted(set(sys.modules) - package))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == str(["config_client.testing", PLUGIN])


@pytest.mark.integration
def test_pytest_finds_the_plugin_by_itself() -> None:
    """The installed distribution announces it."""
    (entry,) = importlib.metadata.entry_points(group="pytest11", name="config_client")
    assert entry.value == PLUGIN


def test_the_package_says_what_it_has_not() -> None:
    """Names are imported when they are first asked for; one that does not exist is an AttributeError as ever."""
    import config_client.testing

    assert all(getattr(config_client.testing, name).__name__ == name for name in config_client.testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = config_client.testing.nothing


@pytest.mark.integration
def test_the_example_of_the_readme_passes(tmp_path: Path) -> None:
    """What the README shows for testing an application is a test file that runs."""
    (example,) = re.findall(r"^```python test_orders\.py\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    done = run_pytest(tmp_path, example)
    assert re.search(r"[1-9] passed", done.stdout), done.stdout + done.stderr
