"""`python -m coh_lightning.world.build FOLDER`: a whole world as a folder of ordinary files; see folder.py.

    python -m coh_lightning.world.build world-0 --base shipped                      the packaged base model: seconds
    python -m coh_lightning.world.build world-1 --seed 1 --hasty 0.8                a base model of its own: minutes
    python -m coh_lightning.world.build noisy --base world-1/model --hasty 0.8 --seed 1 --wrong-words 0.1

A finished folder of the same settings is left as it is. The packaged base models are the folders `model` of two worlds:
`--kind habits` and `--kind noise`, all else left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.world.folder import DOCUMENTS, SHIPPED, WorldSettings, make_world
from coh_lightning.world.writers import HASTY, WORLD_KINDS


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        prog="python -m coh_lightning.world.build", description=(__doc__ or "").split(": ", 1)[1].split("\n")[0]
    )
    add, defaults = parser.add_argument, WorldSettings()
    add("folder", type=Path, metavar="FOLDER", help="folder to make; one of the same settings is left as it is")
    add("--kind", choices=WORLD_KINDS, default=defaults.kind, help="the pretraining writers (default %(default)s)")
    add("--hasty", type=float, metavar="SHARE", help=f"of hasty writers in the `habits` world (default {HASTY})")
    add("--seed", type=int, default=defaults.seed, help="of base model and feedback (default %(default)s)")
    documents = ", ".join(f"{count} ({kind})" for kind, count in DOCUMENTS.items())
    add("--documents", type=int, help=f"pretraining documents, each seen once (default {documents})")
    add("--records", type=int, default=defaults.records, help="records of feedback (default %(default)s)")
    wrong = "of critiques that have one fault exchanged for one that isn't true (default %(default)s)"
    add("--wrong-words", type=float, metavar="SHARE", default=defaults.wrong_words, help=wrong)
    add("--base", metavar="FOLDER", help=f"base model to copy instead of training one; `{SHIPPED}`: the packaged one")
    add("--threads", type=int, default=1, help="of torch; another number rounds differently (default %(default)s)")
    try:
        options = vars(parser.parse_args(argv))
        folder, threads = options.pop("folder"), options.pop("threads")
        if threads < 1:
            parser.error(f"--threads is {threads}; it must be at least 1")
        settings = WorldSettings(**options)

        import torch

        torch.set_num_threads(threads)
        made = make_world(folder, settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(folder if made else f"{folder} (was there already)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
