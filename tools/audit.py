"""Known weaknesses of the installed packages, by pip-audit (``make audit``).

It asks a public service. pip-audit says "no known vulnerabilities" of packages that it could not ask about, too, so
they are counted here. Exit code 0: packages were looked up, and none has a known weakness; 1: some have; 2: nothing was
looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def summary(report: str) -> tuple[int, list[str]]:
    """The exit code, and lines to print.

    Args:
        report: pip-audit's, in JSON; empty if it made none.
    """
    packages = json.loads(report)["dependencies"] if report.strip() else []
    asked = [one for one in packages if "skip_reason" not in one]
    if not asked:
        return 2, ["audit: nothing was looked up, because the service cannot be reached or knows none of the packages"]
    lines = [
        f"{one['name']} {one['version']}: {weakness['id']}, fixed in {', '.join(weakness['fix_versions']) or 'none'}"
        for one in asked
        for weakness in one["vulns"]
    ]
    left = f"; {len(packages) - len(asked)} could not be looked up" if len(packages) > len(asked) else ""
    return int(bool(lines)), [*lines, f"audit: {len(lines)} known weaknesses in {len(asked)} packages{left}"]


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--timeout", "15"]
        subprocess.run([*command, "--format", "json", "--output", str(out)], capture_output=True, check=False)
        code, lines = summary(out.read_text() if out.exists() else "")
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    raise SystemExit(main())
