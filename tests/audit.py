"""`python tests/audit.py constraints.txt`: pip-audit of the pinned packages, for `make check`. A known flaw fails; a
service that can't be asked is said in one line.

pip-audit itself fails alike on a flaw and on a network, and calls a list of packages that the service knows nothing of
free of flaws. Further arguments are its own.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main(words: list[str]) -> int:
    """Print what was found, and give the exit status: 1 where a package has a known flaw."""
    asked = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        *words,
        "--no-deps",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = ([line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"])[-1]
        print(f"audit: the service for known flaws can't be asked, nothing was audited ({last[:200]})")
        return 0
    flaws = [(one, flaw) for one in packages for flaw in one.get("vulns", ())]
    for one, flaw in flaws:
        print(
            f"audit: {one['name']} {one['version']}: {flaw['id']}, mended in "
            f"{', '.join(flaw['fix_versions']) or 'no version yet'}"
        )
    unknown = sum("skip_reason" in one for one in packages)
    if unknown == len(packages):
        print(
            f"audit: the service for known flaws answers for none of the {unknown} packages, nothing was audited "
            f"({packages[0]['skip_reason'] if packages else 'no packages'})"
        )
    else:
        print(
            f"audit: {len(flaws)} known flaws in {len(packages) - unknown} packages"
            + (f"; {unknown} could not be audited" if unknown else "")
        )
    return 1 if flaws else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
