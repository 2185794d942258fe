"""A real spreadsheet program for tests of sheets: LibreOffice Calc, without a window.

Without it the tests that need it are skipped, or fail with CI_OFFICE_REQUIRED=1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Office:
    program: str
    profile: Path
    """The user profile: each test session has its own, so that no other LibreOffice is disturbed."""

    def convert(self, path: Path, to: str, folder: Path, *, read_as: str = "") -> Path:
        """Open a file and save it in another form; `to` is a suffix, with a filter and its options after colons."""
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                self.program,
                f"-env:UserInstallation={self.profile.as_uri()}",
                "--headless",
                *([f"--infilter={read_as}"] if read_as else []),
                "--convert-to",
                to,
                "--outdir",
                str(folder),
                str(path),
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        made = folder / f"{path.stem}.{to.split(':')[0]}"
        assert made.is_file(), f"LibreOffice wrote nothing: {done.stdout}{done.stderr}"
        return made


def started(folder: Path) -> Office:
    """LibreOffice with an empty profile; skips the test where there is none."""
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        reason = "no soffice on this machine (Debian: apt-get install libreoffice-calc)"
        if os.environ.get("CI_OFFICE_REQUIRED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return Office(program, folder / "profile")
