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
from coh_lightning.errors import InputError, counted
from coh_lightning.io import atomic_write
from coh_lightning.worlds import TABLE, resolve

WINDOW, WINDOWS = 512, 32


def measure(model: str, of: str) -> dict[str, float]:
    """{"questions": share} or {"perplexity": value}. Raises InputError for a model or a text that can't be used."""
    if of in TABLE:
        from coh_lightning.model.loading import ModelSpec
        from coh_lightning.model.tokenizer import choose_tokenizer

        spec = ModelSpec(model)
        tokenizer = choose_tokenizer(None, spec, "plain text").tokenizer
        return {"questions": float(resolve("ability", of)(spec.build().eval(), tokenizer))}
    nlls = window_nlls(model, Path(of).read_text(encoding="utf-8"), windows=WINDOWS, fewest=1)
    return {"perplexity": math.exp(sum(nlls) / len(nlls))}


def window_nlls(model: str, text: str, *, windows: int, fewest: int | None = None) -> list[float]:
    """Mean nll per token (nats) of each of the first windows of a text, in float32 on the CPU.

    Args:
        fewest: windows that the text must have at least; None: all.

    Raises:
        InputError: the model can't be loaded, or the text has fewer tokens than the windows.
    """
    import torch

    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.model.tokenizer import choose_tokenizer

    spec = ModelSpec(model)
    tokenizer = choose_tokenizer(None, spec, "plain text").tokenizer
    # a few characters make a token; the whole text would take a while
    ids = tokenizer(text[: 16 * WINDOW * windows], add_special_tokens=False)["input_ids"]
    needed = windows if fewest is None else fewest
    if len(ids) < WINDOW * needed:
        fact = f"The text has {len(ids):,} tokens, fewer than {counted(needed, 'window')} of {WINDOW}"
        raise InputError(f"{fact}; {'ask for fewer' if needed > 1 else 'give a longer one'}.")
    lm = spec.build().eval()
    found = []
    with torch.no_grad():
        for start in range(0, WINDOW * min(windows, len(ids) // WINDOW), WINDOW):
            window = torch.tensor([ids[start : start + WINDOW]])
            found.append(float(lm(input_ids=window, labels=window).loss))
    return found


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
