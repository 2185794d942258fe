"""What trees are worth on a GPU: comparisons a second, model FLOP utilization (MFU) and memory, against the same chains
without trees.

    python tests/benchmarks/gpu.py [--minutes 8] [--output gpu.json]        one GPU, a model of 1.5 billion parameters
    python tests/benchmarks/gpu.py --toy                                    the same on a CPU in seconds: does it run?

Ways, all through the package's own losses, with the head at loss places and in pieces:

    trees, flex      trees packed in rows, FlexAttention by their block mask
    trees, dense     the same with sdpa and a dense mask
    packed, flex     each chain a document of its own in the same rows: what packing does
    padded           batches of 8 chains, padded to the longest, the model's own causal attention

A pass is forward, backward and AdamW (fused) over all comparisons; the ratio to `packed, flex` stands beside that of
the tokens. MFU: 6 x parameters x tokens that are no padding, per second of the card's dense bfloat16 peak. Losses of a
pass are compared. With little time left, what remains is named and not measured.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from shapes import Shape, write
from torch import Tensor, nn

from coh_lightning.data import CoHDataModule
from coh_lightning.model.head import row_losses, use_head_in_pieces
from coh_lightning.model.losses import Batch, to_batch
from coh_lightning.sequences.rows import lay_out, pack
from coh_lightning.sequences.trees import Tree

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 FLOP a second of a card whose name has this word (the makers' figures)."""
REPS, PADDED = 3, 8
SIZES: dict[str, dict[str, Any]] = {
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True},
    "toy": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 8192, "tie_word_embeddings": True},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Comparisons as trees, in rows of one length."""

    trees: Sequence[Tree]
    row_tokens: int

    @property
    def chains(self) -> list[Tree]:
        return [chain for tree in self.trees for chain in alone(tree)]

    def packed(self, trees: Sequence[Tree]) -> list[Batch]:
        """Rows of trees, whose losses add up to the mean over all learned tokens, once for each chain that has it."""
        scale = 1 / sum(float(tree.learned.sum()) for tree in trees)
        rows = []
        for members in pack([tree.tokens for tree in trees], self.row_tokens):
            mine = [trees[number] for number in members]
            rows.append(to_batch(lay_out(mine, [scale] * len(mine), row_tokens=self.row_tokens, pad_id=0)))
        return rows


def alone(tree: Tree) -> list[Tree]:
    """Each chain of a tree as a tree of its own."""
    found = []
    for path, weights, spans in zip(tree.paths, tree.weights, tree.spans, strict=True):
        own = np.arange(len(path), dtype=np.int32)
        parent, end = np.maximum(own - 1, 0), np.full(len(path), len(path), np.int32)
        none = np.zeros(len(path))
        found.append(Tree(tree.ids[path], own, parent, end, weights, none, (own,), (weights,), (spans,)))
    return found


def trees_of(shape: Shape, pairs: int, row_tokens: int, folder: Path) -> Sequence[Tree]:
    sizes = {"row_tokens": row_tokens, "max_chain_tokens": 1024, "max_prompt_tokens": 768, "fcm_range": (0.0, 0.0)}
    settings: dict[str, Any] = {**write(shape, pairs, folder), "validation_share": 0.0, "test_share": 0.0, **sizes}
    data = CoHDataModule(**settings)
    data.setup()
    return [data.rows.tree(item, "train") for item in data.rows.items["train"]]


def padded(lm: nn.Module, chains: Sequence[Tree], device: torch.device) -> list[Callable[[], Tensor]]:
    """The loss of batches of chains of similar length, by the model's own causal attention; logits at loss places."""
    scale = 1 / sum(float(chain.learned.sum()) for chain in chains)
    order = sorted(range(len(chains)), key=lambda number: chains[number].tokens)
    batches = [[chains[number] for number in order[at : at + PADDED]] for at in range(0, len(order), PADDED)]

    def loss(batch: Sequence[Tree]) -> Tensor:
        longest = max(chain.tokens for chain in batch)
        ids, weights, mask = (torch.zeros(len(batch), longest, device=device) for _ in range(3))
        for row, chain in enumerate(batch):
            ids[row, : chain.tokens] = torch.from_numpy(chain.ids.astype(np.float32)).to(device)
            weights[row, : chain.tokens] = torch.from_numpy(chain.learned.astype(np.float32)).to(device)
            mask[row, : chain.tokens] = 1
        hidden = lm.get_decoder()(input_ids=ids.long(), attention_mask=mask.long(), use_cache=False).last_hidden_state  # type: ignore[operator]
        wanted = weights[:, 1:] > 0
        logits = lm.get_output_embeddings()(hidden[:, :-1][wanted]).float()  # type: ignore[operator]
        nll = nn.functional.cross_entropy(logits, ids.long()[:, 1:][wanted], reduction="none")
        return scale * (nll * weights[:, 1:][wanted]).sum()

    return [lambda batch=batch: loss(batch) for batch in batches]


def rows(lm: nn.Module, batches: Sequence[Batch], device: torch.device) -> list[Callable[[], Tensor]]:
    there = [{name: value.to(device) for name, value in batch.items()} for batch in batches]
    return [lambda batch=batch: row_losses(lm, batch).loss for batch in there]


def model(size: str, attention: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES[size], max_position_embeddings=32_768)
    config._attn_implementation = attention
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        lm: nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    use_head_in_pieces(lm)
    return lm


def measure(
    work: Callable[[nn.Module], list[Callable[[], Tensor]]], size: str, attention: str, device: torch.device
) -> dict[str, Any]:
    """Seconds of a pass (the median of `REPS` after one to warm up), peak memory, and the loss of the first pass."""
    lm = model(size, attention, device)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=1e-5, fused=device.type == "cuda")
    losses = work(lm)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first, seconds = 0.0, []
    for number in range(REPS + 1):
        _wait(device)
        start = time.perf_counter()
        total = 0.0
        for one in losses:
            loss = one()
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        seconds.append(time.perf_counter() - start)
        if number == 0:
            first = total
    found = {
        "seconds": statistics.median(seconds[1:]),
        "first_seconds": seconds[0],
        "loss": first,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        "parameters": sum(one.numel() for one in lm.parameters()),
    }
    del lm, optimizer, losses
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compared(
    shape: Shape, pairs: int, row_tokens: int, size: str, device: torch.device, until: float
) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        case = Case(trees_of(shape, pairs, row_tokens, Path(folder)), row_tokens)
    trees, chains = list(case.trees), case.chains
    tokens = {"trees": sum(one.tokens for one in trees), "chains": sum(one.tokens for one in chains)}
    flex = "flex_attention" if device.type == "cuda" else "sdpa"
    ways: dict[str, tuple[str, str, Callable[[nn.Module], list[Callable[[], Tensor]]]]] = {
        "packed, flex": ("chains", flex, lambda lm: rows(lm, case.packed(chains), device)),
        "trees, flex": ("trees", flex, lambda lm: rows(lm, case.packed(trees), device)),
        "trees, dense": ("trees", "sdpa", lambda lm: rows(lm, case.packed(trees), device)),
        "padded": ("chains", "sdpa", lambda lm: padded(lm, chains, device)),
    }
    found: list[dict[str, Any]] = []
    for name, (kind, attention, work) in ways.items():
        row: dict[str, Any] = {"shape": shape, "row_tokens": row_tokens, "way": name, "comparisons": len(trees)}
        if time.monotonic() > until:
            row["error"] = "not measured: the time is over"
        else:
            try:
                row |= measure(work, size, attention, device)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                row["error"] = str(error).split("\n", 1)[0][:200]
        if "seconds" in row:
            row["comparisons_per_second"] = len(trees) / row["seconds"]
            row["mfu"] = 6 * row["parameters"] * tokens[kind] / row["seconds"] / peak(device)
            row["token_ratio"] = tokens["chains"] / tokens[kind]
            base = found[0] if found else row
            row["ratio"] = base["seconds"] / row["seconds"] if "seconds" in base else None
            row["loss_difference"] = abs(row["loss"] / base["loss"] - 1) if "loss" in base else None
        found.append(row)
        print(line(row), flush=True)
    return found


def peak(device: torch.device) -> float:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((value for word, value in PEAKS.items() if word in name), float("nan"))


def line(row: dict[str, Any]) -> str:
    begin = f"{row['shape']:<5}{row['row_tokens']:>6}  {row['way']:<13}"
    if "error" in row:
        return f"{begin}{row['error']}"
    memory = "" if row["memory_gib"] is None else f"  {row['memory_gib']:.1f} GiB"
    ratio = "" if row["ratio"] is None else f"  {row['ratio']:.2f}x of {row['token_ratio']:.2f}x"
    return (
        f"{begin}{row['comparisons_per_second']:>8.1f}/s  MFU {row['mfu']:.2f}{ratio}{memory}  loss {row['loss']:.5f}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--minutes", type=float, default=8, help="begin no measurement later (default %(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the rows")
    args = parser.parse_args(argv)
    if not args.toy and not torch.cuda.is_available():
        parser.error("there is no GPU here; --toy runs a tiny model on the CPU")
    until = time.monotonic() + args.minutes * 60
    size, device = ("toy", torch.device("cpu")) if args.toy else ("1.5B", torch.device("cuda"))
    lengths, pairs = ((1024,), 8) if args.toy else ((4096, 16_384), 200)
    shapes: tuple[Shape, ...] = ("hh", "tldr")
    where = "CPU" if args.toy else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}, transformers {transformers.__version__}, model {size}")
    found = [
        row for length in lengths for shape in shapes for row in compared(shape, pairs, length, size, device, until)
    ]
    if args.output is not None:
        args.output.write_text(
            json.dumps({"device": where, "torch": torch.__version__, "rows": found}, indent=1) + "\n"
        )
    measured = [row for row in found if "loss" in row]
    worst = max((row["loss_difference"] or 0 for row in measured), default=float("nan"))
    print(f"largest relative difference of losses: {worst:.1e}")
    return 0 if measured and worst < (1e-4 if args.toy else 2e-2) else 1


if __name__ == "__main__":
    sys.exit(main())
