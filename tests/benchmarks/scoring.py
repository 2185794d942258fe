"""How fast pairs are scored: our trees (a shared prompt is computed once) against padded batches of both outputs, whole
logits as `transformers` gives them.

    OMP_NUM_THREADS=1 python tests/benchmarks/scoring.py

48 comparisons of the lengths of helpful dialogues (prompts of 20 to 400 words, outputs of 10 to 150), a Llama of 6
layers of 256. All ways are run in turn, five times; the ratio is that of medians, its range that of the rounds. Their
log-likelihoods are compared before anything is timed.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, LlamaConfig

from coh_lightning.data import CoHDataModule
from coh_lightning.generation.forward import generating
from coh_lightning.model.head import row_losses
from coh_lightning.model.layout_check import use_tree_attention
from coh_lightning.model.losses import output_log_likelihoods
from coh_lightning.world.posts import vocabulary

PAIRS, ROUNDS, BATCH = 48, 5, 8


def comparisons(folder: Path) -> CoHDataModule:
    words, random_ = vocabulary(), random.Random(0)

    def text(least: int, most: int) -> str:
        return " ".join(random_.choices(words, k=random_.randint(least, most)))

    lines = [
        {
            "id": str(i),
            "prompt": text(20, 400),
            "completions": [{"text": text(10, 150), "rank": 1}, {"text": text(10, 150), "rank": 2}],
        }
        for i in range(PAIRS)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = CoHDataModule(
        str(folder / "pairs.jsonl"),
        validation_share=0.0,
        test_share=0.0,
        cache_dir=str(folder),
        row_tokens=2048,
        max_chain_tokens=1024,
        tokenizer="world",
    )
    data.setup("fit")
    return data


def chains(data: CoHDataModule) -> list[tuple[Tensor, int]]:
    """Each output under the good sentence as a plain sequence, and where the output begins."""
    found = []
    for one in data.splits["train"]:
        good = data.prompter.conditions(one.record)["good"]
        link = data.planner.chains(one)[0][0]
        for candidate in one.record.candidates:
            tokens = data.prompter.tokens.chain(one.prompt, (type(link)(good, candidate.text),))
            found.append((torch.tensor(tokens.ids, dtype=torch.long), tokens.spans[0].start))
    return found


def padded(lm: torch.nn.Module, sequences: list[tuple[Tensor, int]], *, order: list[int]) -> list[float]:
    """Right-padded batches in this order; the logits of all positions."""
    scores = [0.0] * len(sequences)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids = torch.nn.utils.rnn.pad_sequence([sequences[i][0] for i in chosen], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(sequences[i][0]) for i in chosen], batch_first=True)
        log_p = log_softmax(lm(input_ids=ids, attention_mask=mask).logits.float(), dim=-1)[:, :-1].gather(
            2, ids[:, 1:, None]
        )[..., 0]
        for row, i in enumerate(chosen):
            begin, end = sequences[i][1], len(sequences[i][0])
            scores[i] = float(log_p[row, begin - 1 : end - 1].double().sum())
    return scores


def trees(lm: torch.nn.Module, data: CoHDataModule, *, markers: int) -> list[float]:
    """Our way; of the outputs under the good sentence alone where `markers` is 1, as the padded ways score them."""
    scores: list[float] = []
    _, compared = data.held_out("train")
    for index in range(compared.count):
        for row in compared.build(index)["rows"]:
            total, _ = output_log_likelihoods(row_losses(lm, row), row, outputs=row["outputs"])
            scores += total.tolist()[: 2 * markers]
    return scores


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        data = comparisons(Path(folder))
        config = LlamaConfig(
            vocab_size=8192,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=6,
            num_attention_heads=8,
            max_position_embeddings=2048,
            use_cache=False,
        )
        lm = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        assert use_tree_attention(lm, row_tokens=2048)  # as a run on a CPU does; the padded ways stay as they are
        sequences = chains(data)
        as_they_come = list(range(len(sequences)))
        by_length = sorted(as_they_come, key=lambda i: len(sequences[i][0]))
        ways: dict[str, Callable[[], list[float]]] = {
            "padded batches of 8": lambda: padded(lm, sequences, order=as_they_come),
            "the same, sorted by length": lambda: padded(lm, sequences, order=by_length),
            "trees, both sentences": lambda: trees(lm, data, markers=1),
        }
        with generating(lm):
            results = {name: way() for name, way in ways.items()}
            reference = results["padded batches of 8"]
            for name, scores in results.items():
                assert torch.allclose(torch.tensor(scores), torch.tensor(reference), rtol=1e-4), name
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, way in ways.items():
                    start = time.perf_counter()
                    way()
                    seconds[name].append(time.perf_counter() - start)
    base = seconds["padded batches of 8"]
    for name, taken in seconds.items():
        ratios = [b / t for b, t in zip(base, taken, strict=True)]
        rate = PAIRS / statistics.median(taken)
        print(
            f"{name:<30}{rate:8.1f} pairs/s   {statistics.median(base) / statistics.median(taken):5.2f}x "
            f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        )
    print(
        "padded: both outputs under the good sentence; trees: under the good and the bad sentence, so twice as many "
        "scores"
    )


if __name__ == "__main__":
    main()
