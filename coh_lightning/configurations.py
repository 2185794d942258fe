"""Where the configurations that come with the package are found, so that `conf/quickstart.yaml` may be written in any
folder.

conf/method/coh.yaml   in the current folder, if it is there; else
                       coh_lightning/conf/method/coh.yaml of the installed package, or conf/method/coh.yaml of the
                       repository in an editable install
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path, PurePath

PACKAGE = Path(__file__).parent
CONF = next((folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir()), PACKAGE / "conf")
"""The folder of the configurations that come with the package."""


def ours(path: PurePath) -> Path | None:
    """Where a path that begins with conf/ would lie among the configurations of the package; None for any other
    path.
    """
    return CONF.joinpath(*path.parts[1:]) if path.parts[:1] == ("conf",) else None


def found(words: Sequence[str]) -> list[str]:
    """The arguments of a command, where each conf/....yaml that is not in the current folder is replaced by the
    package's; says so in one line on stderr.
    """
    new, taken = [], []
    for word in words:
        key, equals, value = word.rpartition("=")
        file = ours(PurePath(value))
        if file is not None and file.suffix == ".yaml" and file.is_file() and not Path(value).exists():
            word = f"{key}{equals}{file}"
            taken.append(value)
        new.append(word)
    if taken:
        print(
            f"not in this folder, so taken from {CONF}: {', '.join(dict.fromkeys(taken))}", file=sys.stderr, flush=True
        )
    return new
