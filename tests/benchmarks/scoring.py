"""How fast the answers of pairs are scored: our trees (a shared prompt is computed once, several records to a pass,
logits at outputs only) against right-padded batches of 8 of every answer after its prompt.

    OMP_NUM_THREADS=1 python tests/benchmarks/scoring.py [PAIRS]

    padded                       batches as they come, the logits of all positions, as `transformers` gives them
    sorted                       the same, sorted by length
    sorted at output places      and logits only where outputs are

Both answers of a pair are scored under the good sentence by all ways (`data.compare_under: good`), and their
log-likelihoods are compared before anything is timed. `both sentences` is ours with twice as many scores, under the bad
sentence too. Prompts have 20 to 400 words, outputs 10 to 150; a Llama of 6 layers of 256. All ways are run in turn, and
seconds are those of the processor. The ratio is the median of those of the rounds.

The first line that is printed counts tokens. Nearly all of the time is the model's, so the ratio to `sorted at output
places` is about that of the tokens, and can't be much more.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from timing import REPS, row, show, timed
from torch import Tensor
from torch.nn.functional import log_softmax, pad
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from coh_lightning.data import CoHDataModule
from coh_lightning.generation.forward import generating
from coh_lightning.generation.scoring import output_scores
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.world.posts import vocabulary

PAIRS, BATCH, ROW = 32, 8, 2048
Sequences = Sequence[tuple[Tensor, int]]
"""Each answer after its prompt under the good sentence, and where it begins."""


def pairs_data(folder: Path, pairs: int, under: Literal["both", "good"]) -> CoHDataModule:
    words, random_ = vocabulary(), random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(random_.choices(words, k=random_.randint(least, most)))

    lines = [
        {
            "id": str(i),
            "prompt": text(20, 400),
            "completions": [{"text": text(10, 150), "rank": 1}, {"text": text(10, 150), "rank": 2}],
        }
        for i in range(pairs)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = CoHDataModule(
        str(folder / "pairs.jsonl"),
        validation_share=0.0,
        test_share=0.0,
        cache_dir=str(folder),
        row_tokens=ROW,
        max_chain_tokens=1024,
        tokenizer="world",
        compare_under=under,
    )
    data.setup("fit")
    return data


def plain_sequences(data: CoHDataModule) -> Sequences:
    found = []
    for one in data.splits["train"]:
        good = data.prompter.conditions(one.record)["good"]
        link = data.planner.chains(one)[0][0]
        for candidate in one.record.candidates:
            tokens = data.prompter.tokens.chain(one.prompt, (type(link)(good, candidate.text),))
            found.append((torch.tensor(tokens.ids, dtype=torch.long), tokens.spans[0].start))
    return found


def padded(lm: PreTrainedModel, sequences: Sequences, *, by_length: bool, at_outputs: bool) -> list[float]:
    """Right-padded batches, as they come or sorted; the logits of all positions, or of those before outputs' tokens."""
    scores = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0])) if by_length else range(len(sequences))
    for start in range(0, len(sequences), BATCH):
        chosen = list(order)[start : start + BATCH]
        longest = max(len(sequences[i][0]) for i in chosen)
        ids = torch.stack([pad(sequences[i][0], (0, longest - len(sequences[i][0]))) for i in chosen])
        mask = torch.stack([(torch.arange(longest) < len(sequences[i][0])).long() for i in chosen])
        spans = [(sequences[i][1], len(sequences[i][0])) for i in chosen]
        if at_outputs:
            hidden = lm.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            wanted = torch.cat([hidden[place, start - 1 : stop - 1] for place, (start, stop) in enumerate(spans)])
            targets = torch.cat([ids[place, start:stop] for place, (start, stop) in enumerate(spans)])
            found = log_softmax(lm.lm_head(wanted).float(), dim=-1).gather(1, targets[:, None])[:, 0]
            parts = found.split([stop - start for start, stop in spans])
        else:
            every = log_softmax(lm(input_ids=ids, attention_mask=mask).logits.float(), dim=-1)
            found = every[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
            parts = tuple(found[place, start - 1 : stop - 1] for place, (start, stop) in enumerate(spans))
        for i, part in zip(chosen, parts, strict=True):
            scores[i] = float(part.double().sum())
    return scores


def ours(lm: PreTrainedModel, data: CoHDataModule) -> list[float]:
    """The scores of both answers of each pair under the good sentence."""
    _, compared = data.held_out("train")
    rows = [part for index in range(compared.count) for part in compared.build(index)["rows"]]
    return [score for total, _ in output_scores(lm, rows, at_once=ROW) for score in total.tolist()[:2]]


def bench(pairs: int = PAIRS, reps: int = REPS) -> list[dict[str, Any]]:
    """A row for each peer, and one for what both sentences cost."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        good, both = (pairs_data(Path(folder), pairs, under) for under in ("good", "both"))
        config = LlamaConfig(
            vocab_size=8192,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=6,
            num_attention_heads=8,
            max_position_embeddings=ROW,
            use_cache=False,
        )
        lm = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        assert use_tree_attention(lm, row_tokens=ROW)  # as a run on a CPU does; the padded ways stay as they are
        sequences = plain_sequences(good)
        ways: dict[str, Callable[[], list[float]]] = {
            "ours": lambda: ours(lm, good),
            "ours, both sentences": lambda: ours(lm, both),
            "padded": lambda: padded(lm, sequences, by_length=False, at_outputs=False),
            "sorted": lambda: padded(lm, sequences, by_length=True, at_outputs=False),
            "sorted at output places": lambda: padded(lm, sequences, by_length=True, at_outputs=True),
        }
        with generating(lm):
            results = {name: torch.tensor(way(), dtype=torch.float64) for name, way in ways.items()}
            seconds = timed(ways, reps)
        tokens = sum(len(ids) for ids, _ in sequences)
        least = sum(
            tree.tokens
            for one in map(good.comparer.comparison, good.splits["train"])
            if one
            for tree in good.comparer.trees(one)
        )
    print(f"{pairs} pairs: {tokens} tokens one by one, {least} in trees: {tokens / least:.2f} times fewer")
    return [
        row(
            f"scoring: {name}",
            seconds["ours"],
            taken,
            amount=pairs,
            unit="pairs/s",
            equal=torch.allclose(results[name], results["ours"], rtol=1e-5),
        )
        for name, taken in seconds.items()
        if name != "ours"
    ]


if __name__ == "__main__":
    show(bench(*map(int, sys.argv[1:])))
