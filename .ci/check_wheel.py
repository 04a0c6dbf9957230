"""A look into the built wheel, then an installation of it where the sources cannot be seen.

Knows what a wheel of this project must hold. The installation takes its dependencies from the environment that runs
this script, so it needs no network.

    python .ci/check_wheel.py dist
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MUST_HOLD: Final = {
    "the SDK": r"config_client/__init__\.py",
    "the SDK's type marker": r"config_client/py\.typed",
    "the service": r"config_service/__init__\.py",
    "the service's type marker": r"config_service/py\.typed",
    "the migrations' environment": r"config_service/store/migrations/env\.py",
    "a migration": r"config_service/store/migrations/versions/[^/]+\.py",
    "the licence": r"[^/]+\.dist-info/licenses/LICENSE",
}
OURS: Final = r"(config_client|config_service|[^/]+\.dist-info)/(?!.*__pycache__)"

PROBE: Final = """
import importlib.metadata, pathlib, sys
import config_client.client, config_service.app
for package in (config_client, config_service):
    if pathlib.Path(sys.prefix).resolve() not in pathlib.Path(package.__file__).resolve().parents:
        sys.exit(f"{package.__name__} was imported from {package.__file__}, not from the wheel")
print(importlib.metadata.version("python-config-client"))
"""


def faults(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the files of a wheel: what it lacks, and what it should not carry."""
    files = list(names)
    lacking = [f"lacks {what}" for what, path in MUST_HOLD.items() if not any(re.fullmatch(path, f) for f in files)]
    return lacking + [f"carries {file}" for file in files if not re.match(OURS, file)]


def installed_version(wheel: Path, home: Path) -> str:
    """Install ``wheel`` into a new environment at ``home``, run and import from it, return the version it reports.

    Raises ``subprocess.CalledProcessError`` when it does not install, import, or answer ``--help``.
    """
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    # .pth files are not read on this path, so the editable installation beside the dependencies stays out of sight.
    env = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = home / "bin" / "config-service"
    subprocess.run([command, "--help"], check=True, cwd=home, env=env, stdout=subprocess.DEVNULL)
    run = subprocess.run([python, "-c", PROBE], check=True, cwd=home, env=env, stdout=subprocess.PIPE, text=True)
    return run.stdout.strip()


def main(dist: Path) -> int:
    """Check the one wheel in ``dist``; return the exit status."""
    wheels = list(dist.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{dist}: one wheel expected, {len(wheels)} found")
        return 1
    wheel = wheels[0].resolve()
    with zipfile.ZipFile(wheel) as archive:
        wrong = faults(archive.namelist())
    if not wrong:
        with tempfile.TemporaryDirectory() as directory:
            version = installed_version(wheel, Path(directory))
        wrong = [] if f"-{version}-" in wheel.name else [f"reports version {version} once installed"]
    print(f"{wheel.name}: {'; '.join(wrong) or 'complete, installs, runs and imports'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
