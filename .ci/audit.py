"""Audit of pinned requirements against the vulnerability database, with an honest verdict.

Knows pip-audit's JSON report. pip-audit says "no known vulnerabilities" also when it could look up nothing: a package
that the database answers with 404 is merely skipped. Here that is "not audited".

    python .ci/audit.py requirements/dev.txt

Exit status 1 when a vulnerability is known. An audit that could not be made does not fail: it says so instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TIMEOUT: Final = 300
"""Seconds for the whole audit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said, and whether a known vulnerability stands behind it."""

    text: str
    vulnerable: bool = False


def verdict(report: str, complaint: str) -> Verdict:
    """Return what pip-audit's JSON ``report`` amounts to; ``complaint`` is what it wrote to stderr.

    A known vulnerability outweighs packages that were not looked up; a package not looked up rules out "clean".
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = complaint.strip().splitlines()
        return Verdict(f"not audited: {lines[-1] if lines else 'pip-audit gave no report'}")
    if not packages:
        return Verdict("not audited: the report names no package")
    skipped = [package["skip_reason"] for package in packages if "skip_reason" in package]
    gap = f"not audited: {len(skipped)} of {len(packages)} packages, the first: {skipped[0]}" if skipped else ""
    found = [
        f"  {package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in packages
        for flaw in package.get("vulns", ())
    ]
    if found:
        return Verdict("\n".join(filter(None, ["vulnerable:", *found, gap])), vulnerable=True)
    return Verdict(gap or f"clean: no known vulnerability in {len(packages)} packages")


def audit(requirements: str) -> Verdict:
    """Run pip-audit on a hashed requirements file and return the verdict."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--require-hashes", "--disable-pip"]
    options = ["--progress-spinner", "off", "--format", "json", "--cache-dir", ".cache/pip-audit"]
    try:
        run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(f"not audited: no answer from the vulnerability database within {TIMEOUT} s")
    return verdict(run.stdout, run.stderr)


def main(arguments: Sequence[str]) -> int:
    """Audit each file named; return the exit status."""
    status = 0
    for requirements in arguments:
        outcome = audit(requirements)
        print(f"{requirements}: {outcome.text}")
        status = max(status, int(outcome.vulnerable))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
