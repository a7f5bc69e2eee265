"""How many packages pip-audit could look up, and what it found: run by `.ci/release`.

python .ci/audited.py REPORT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(report: str) -> None:
    """Print the numbers and every vulnerability.

    Raises:
        SystemExit: there are vulnerabilities, or nothing was looked up.
    """
    text = Path(report).read_text(encoding="utf-8")
    packages = json.loads(text)["dependencies"] if text.strip() else []
    audited = [one for one in packages if "skip_reason" not in one]
    found = [(one["name"], one["version"], bad["id"]) for one in audited for bad in one["vulns"]]
    sys.stdout.write(f"{len(audited)} of {len(packages)} packages audited, {len(found)} vulnerabilities known\n")
    for name, version, known in found:
        sys.stdout.write(f"{name} {version}: {known}\n")
    if not audited:
        sys.stdout.write("the index configured here gives no advisories: run this where PyPI's own is reached\n")
    raise SystemExit(1 if found or not audited else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
