"""`python scripts/cost.py`: estimated memory and throughput of full fine-tuning, by model and number of GPUs, with
every assumption stated.

    config.json -> Model -> parameters -> memory of a GPU      16 bytes a parameter, sharded over the GPUs;
                                                               activations and logits of one row
                                       -> seconds of a row     the slower of arithmetic and communication

docs/cost.md is what it prints. Only arithmetic: nothing is measured, and neither torch nor transformers is imported.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.model.memory import activation_bytes, logit_bytes, sources_at_once

GIB = 2**30
KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose parameters are counted exactly: RMS norms, a gated MLP, grouped attention."""


@dataclass(frozen=True)
class Model:
    """The sizes of a causal language model, as in its config.json."""

    name: str
    kind: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool

    @property
    def block_matrices(self) -> int:
        """Weights of one block that take part in a matrix product."""
        return 2 * self.hidden * self.head_size * (self.heads + self.kv_heads) + 3 * self.hidden * self.intermediate

    @property
    def block(self) -> int:
        """All parameters of one block."""
        extra = {"qwen2": self.head_size * (self.heads + 2 * self.kv_heads), "qwen3": 2 * self.head_size}
        return self.block_matrices + 2 * self.hidden + extra.get(self.kind, 0)

    @property
    def embeddings(self) -> int:
        """The embedding, and the head where it is not the same."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        return self.layers * self.block + self.embeddings + self.hidden


MODELS = (
    Model("1.5B (Qwen2.5-1.5B)", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, True),
    Model("7B (Qwen2.5-7B)", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, False),
    Model("70B (Llama-3.1-70B)", "llama", 80, 8192, 28672, 64, 8, 128, 128256, False),
)


@dataclass(frozen=True)
class Feedback:
    """Mean sizes of one record's chains."""

    name: str
    plain: float
    """Tokens as plain chains, ..."""
    tree: float
    """... and laid out as a tree."""
    chain: float
    """Tokens of one chain."""
    loss_share: float
    """Share of the tree's tokens that something is learned at, which are those that the head is computed for."""


FEEDBACK = (Feedback("summaries (TL;DR)", 1555, 491, 389, 0.28), Feedback("dialogues (HH)", 768, 317, 192, 0.57))
"""Comparisons, each as four chains: TL;DR with lengths spread around 350 and 35 tokens; HH harmless with its own
lengths.
"""


@dataclass(frozen=True)
class Machine:
    """What is assumed of the hardware and of how it is used."""

    row_tokens: int = 4096
    peak: float = 989e12
    """Dense bfloat16 arithmetic of a GPU, FLOP/s."""
    utilization: float = 0.4
    """Share of the peak that is reached, recomputation counted as work."""
    memory: float = 78
    """GiB of a GPU that can be used."""
    node: int = 8
    within: float = 300e9
    """Bytes/s that a GPU receives from others of its node, ..."""
    between: float = 40e9
    """... and across nodes."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    states: float
    """Float32 weights, gradients and AdamW's two moments: 16 bytes a parameter, sharded."""
    working: float
    """Weights in bfloat16 while they are used."""
    activations: float
    logits: float
    other: float = 2 * GIB
    """CUDA's own, kernels, and what the allocator can't use."""

    @property
    def total(self) -> float:
        return self.states + self.working + self.activations + self.logits + self.other


def memory(model: Model, gpus: int, feedback: Feedback, machine: Machine) -> Memory:
    """With activation checkpointing, one row at a time on each GPU."""
    # one GPU: autocast keeps a copy of all weights; several: two blocks are gathered (one in use, the next on its way),
    # and one block's gradient waits to be reduced
    working = 2 * model.parameters if gpus == 1 else 2 * (2 * model.block + model.embeddings) + 4 * model.block
    activations = activation_bytes(
        machine.row_tokens,
        layers=model.layers,
        hidden=model.hidden,
        intermediate=model.intermediate,
        size=2,
        recomputed=True,
    )
    sources = machine.row_tokens * feedback.loss_share
    at_once = sources_at_once(math.ceil(sources), vocabulary=model.vocabulary, gpu=True)
    logits = logit_bytes(min(sources, at_once), model.vocabulary, 2)
    return Memory(16 * model.parameters / gpus, working, activations, logits)


@dataclass(frozen=True)
class Speed:
    """Seconds of one row on each GPU: arithmetic, and communication behind it."""

    arithmetic: float
    communication: float
    tokens_per_second: float
    """Of all GPUs together."""


def speed(model: Model, gpus: int, feedback: Feedback, machine: Machine) -> Speed:
    """The slower of the two counts, as if each hid behind the other; a step's optimizer and the reading of data are
    left out.
    """
    attention = 4 * model.layers * model.heads * model.head_size * feedback.chain / 2
    trunk = 2 * model.layers * model.block_matrices + attention
    head = 2 * model.vocabulary * model.hidden * feedback.loss_share
    operations = machine.row_tokens * (
        4 * trunk + 3 * head
    )  # forward, again for the backward pass, and backward; the head's forward is kept
    arithmetic = operations / (machine.peak * machine.utilization)
    # weights in bfloat16 for the forward and for the backward pass, gradients in float32
    received = (2 + 2 + 4) * model.parameters * (gpus - 1) / gpus
    communication = received / (machine.within if gpus <= machine.node else machine.between)
    return Speed(arithmetic, communication, gpus * machine.row_tokens / max(arithmetic, communication))


def read_model(path: Path) -> Model:
    """The sizes in a config.json, or in the folder that has one.

    Raises:
        InputError: there is none, or its architecture isn't counted here.
    """
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there is no {file}; give a model's config.json or its folder.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = config["model_type"]
        if kind not in KNOWN:
            raise InputError(
                f"{file} is of the architecture {kind}; counted are {', '.join(KNOWN)}; give the config.json of "
                "one of these of the same size."
            )
        heads = config["num_attention_heads"]
        return Model(
            file.parent.name,
            kind,
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["vocab_size"],
            config.get("tie_word_embeddings", False),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is not the config.json of a language model: {type(error).__name__} {error}."
        ) from error


def read_feedback(file: Path) -> Feedback:
    """The sizes of a run's own feedback, from its data.json.

    Raises:
        InputError: there is none, or it has no counts.
    """
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        train = report["splits"]["train"]
        plain, tree, records = train["tokens_plain"], train["tokens_tree"], train["used"]
        # a token that two chains learn counts twice here, so this is the most that it can be
        share = min(1.0, train["tokens_in_loss"] / tree)
        return Feedback(file.parent.name, plain / records, tree / records, plain / train["chains"], share)
    except (OSError, KeyError, ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(
            f"{file} is not the data.json of a run: {type(error).__name__} {error}; give the one of a run's folder."
        ) from error


def tables(
    models: Sequence[Model], gpus: Sequence[int], feedback: Sequence[Feedback], machine: Machine, records: int
) -> str:
    """The assumptions and the tables, as Markdown."""
    lines = [
        "Assumed, all of it:",
        "",
        "* Full fine-tuning; weights, gradients and AdamW's two moments in float32 (16 bytes a parameter), "
        "arithmetic in bfloat16. With several GPUs FSDP shards all four over all of them.",
        f"* One row of {machine.row_tokens:,} tokens at a time on each GPU, activation checkpointing, an attention "
        "that skips what is masked (FlexAttention), the head at loss positions only.",
        "* Kept of a token: the input of each block; of the one block that is recomputed 8 hidden and 4 intermediate "
        "sizes and their gradients, in bfloat16; of a loss position 10 bytes a vocabulary entry, and the head runs in "
        "pieces where that is much.",
        f"* {machine.utilization:.0%} of {machine.peak / 1e12:.0f} TFLOP/s (H100), recomputation counted as work; a "
        f"GPU receives {machine.within / 1e9:.0f} GB/s within a node of {machine.node} "
        f"and {machine.between / 1e9:.0f} GB/s across nodes; the slower of arithmetic and communication counts. "
        f"{machine.memory:g} GiB of a GPU can be used, 2 GiB go to CUDA.",
        "* Tokens of a record as plain chains, and as a tree: "
        + "; ".join(
            f"{one.name} {one.plain:.0f}, {one.tree:.0f} ({one.plain / one.tree:.1f} times fewer)" for one in feedback
        )
        + ".",
        "",
        "Memory of one GPU, in GiB:",
        "",
        "| model | parameters | GPUs | weights, gradients, optimizer | weights in use | activations | logits | total "
        "| fits |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    most = max(feedback, key=lambda one: one.loss_share)
    for model in models:
        for number in gpus:
            one = memory(model, number, most, machine)
            parts = " | ".join(
                f"{part / GIB:,.1f}" for part in (one.states, one.working, one.activations, one.logits, one.total)
            )
            fits = "yes" if one.total <= machine.memory * GIB else "**no**"
            lines.append(f"| {model.name} | {model.parameters:,} | {number} | {parts} | {fits} |")
    for each in feedback:
        lines += [
            "",
            f"Throughput on {each.name}, all GPUs together, where it fits:",
            "",
            f"| model | GPUs | tokens/s | limited by | records/s as trees | as plain chains | hours for {records:,} "
            "records as trees | as plain chains |",
            "|---|---:|---:|---|---:|---:|---:|---:|",
        ]
        for model in models:
            for number in gpus:
                if memory(model, number, most, machine).total > machine.memory * GIB:
                    continue
                fast = speed(model, number, each, machine)
                limit = "arithmetic" if fast.arithmetic >= fast.communication else "communication"
                tree, plain = fast.tokens_per_second / each.tree, fast.tokens_per_second / each.plain
                rates = f"{tree:,.1f} | {plain:,.1f} | {records / tree / 3600:,.2f} | {records / plain / 3600:,.2f}"
                lines.append(f"| {model.name} | {number} | {fast.tokens_per_second:,.0f} | {limit} | {rates} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    usual: Any = Machine()
    parser = CommandParser(
        prog="scripts/cost.py",
        description="Memory and throughput of full fine-tuning, on paper, as Markdown.",
    )
    parser.add_argument(
        "--model",
        type=Path,
        nargs="+",
        metavar="CONFIG",
        help="config.json of a model, or its folder (default: models of 1.5B, 7B and 70B)",
    )
    parser.add_argument(
        "--gpus", type=int, nargs="+", default=[1, 8, 64], metavar="N", help="numbers of GPUs (default: 1 8 64)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="data.json of a run: the sizes of your own feedback (default: comparisons of summaries and of dialogues)",
    )
    parser.add_argument(
        "--records", type=int, default=100_000, metavar="N", help="records to give the hours for (default: %(default)s)"
    )
    parser.add_argument(
        "--row-tokens", type=int, default=usual.row_tokens, metavar="N", help="data.row_tokens (default: %(default)s)"
    )
    parser.add_argument(
        "--memory", type=float, default=usual.memory, metavar="GIB", help="of a GPU (default: %(default)s)"
    )
    parser.add_argument(
        "--peak",
        type=float,
        default=usual.peak,
        metavar="FLOPS",
        help="bfloat16 arithmetic of a GPU, FLOP/s (default: %(default).3g)",
    )
    parser.add_argument(
        "--utilization",
        type=float,
        default=usual.utilization,
        metavar="SHARE",
        help="share of the peak that is reached (default: %(default)s)",
    )
    try:
        print(_estimate(parser.parse_args(argv)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _estimate(args: argparse.Namespace) -> str:
    for name in ("records", "row_tokens", "memory", "peak", "utilization"):
        if getattr(args, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(args, name)}; give a number above 0.")
    if min(args.gpus) < 1:
        raise InputError(f"--gpus is {min(args.gpus)}; give numbers above 0.")
    models = [read_model(path) for path in args.model] if args.model else MODELS
    feedback = [read_feedback(args.data)] if args.data else FEEDBACK
    machine = Machine(row_tokens=args.row_tokens, memory=args.memory, peak=args.peak, utilization=args.utilization)
    return tables(models, args.gpus, feedback, machine, args.records)


if __name__ == "__main__":
    sys.exit(main())
