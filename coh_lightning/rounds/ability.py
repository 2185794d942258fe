"""`python -m coh_lightning.rounds.ability --model MODEL --of world|TEXT --output FILE`: what a model could do before,
and should still do after it learned from feedback.

    world      the share of its questions that the model answers correctly, greedily
    TEXT.txt   its perplexity on plain text, in windows of 512 tokens (the first 32 at most)
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write
from coh_lightning.worlds import TABLE, resolve

WINDOW, WINDOWS = 512, 32


def measure(model: str, of: str) -> dict[str, float]:
    """{"questions": share} or {"perplexity": value}. Raises InputError for a model or a text that can't be used."""
    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.model.tokenizer import choose_tokenizer

    spec = ModelSpec(model)
    tokenizer = choose_tokenizer(None, spec, "plain text").tokenizer
    if of in TABLE:
        lm = spec.build().eval()
        return {"questions": float(resolve("ability", of)(lm, tokenizer))}
    text = Path(of).read_text(encoding="utf-8")
    # a few characters make a token; a whole book would take a while
    ids = tokenizer(text[: 16 * WINDOW * WINDOWS], add_special_tokens=False)["input_ids"]
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)][:WINDOWS]
    if not windows:
        raise InputError(f"{of} has {len(ids):,} tokens; perplexity needs at least {WINDOW}.")
    return {"perplexity": math.exp(_mean_nll(spec.build().eval(), windows))}


def _mean_nll(lm: object, windows: Sequence[Sequence[int]]) -> float:
    """The mean over windows of the mean negative log-likelihood per token but the first, in nats."""
    import torch

    assert callable(lm)
    with torch.no_grad():
        found = [float(lm(input_ids=torch.tensor([window]), labels=torch.tensor([window])).loss) for window in windows]
    return sum(found) / len(found)


def main(argv: Sequence[str]) -> int:
    """Writes the figure of one model; returns the exit status."""
    parser = CommandParser(prog="python -m coh_lightning.rounds.ability", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", required=True, metavar="MODEL", help="a folder, a name on the hub, or a checkpoint")
    parser.add_argument("--of", required=True, metavar="WHAT", help="`world`, or a text file")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="JSON file to write")
    args = parser.parse_args(argv)
    with atomic_write(args.output) as aside:
        aside.write_text(json.dumps(measure(args.model, args.of)) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
