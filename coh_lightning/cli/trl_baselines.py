"""`coh trl dpo|kto|reward|rloo`: the baselines that TRL trains, on the feedback of a configuration of `fit`.

    coh trl dpo --config conf/experiment/world_sft_best.yaml --output runs/dpo
    coh test --config conf/experiment/world_sft_best.yaml --model.name_or_path=runs/dpo

Which completion is better, or good, is decided as for Chain of Hindsight (`coh convert`); the ids are those of our own
supervised fine-tuning (baselines/examples.py). The arguments are parsed before torch and TRL are imported.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.baselines.output import DONE, Run
from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, counted

if TYPE_CHECKING:
    from coh_lightning.baselines.examples import Examples
    from coh_lightning.baselines.rewards import Reward
    from coh_lightning.data import CoHDataModule
    from coh_lightning.feedback.records import Feedback
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.sequences.method import Method


@dataclass(frozen=True)
class Defaults:
    """Settings of a trainer that are not given, for the embedded world."""

    steps: int
    batch: int
    lr: float
    beta: float | None
    samples: int = 1


TRAINERS = {
    "dpo": Defaults(steps=400, batch=8, lr=3e-5, beta=0.1),
    "kto": Defaults(steps=400, batch=16, lr=3e-5, beta=0.1),
    "reward": Defaults(steps=500, batch=16, lr=1e-3, beta=None),
    "rloo": Defaults(steps=100, batch=8, lr=5e-4, beta=0.05, samples=4),
}
OWN = {
    **dict.fromkeys(("--output", "--steps", "--batch", "--micro-batch", "--lr", "--beta", "--seed"), True),
    **dict.fromkeys(("--samples", "--max-new-tokens", "--reward", "--score", "--save-every"), True),
    **dict.fromkeys(("--bf16", "--gradient-checkpointing", "--help", "-h"), False),
}
"""Our own options, and whether a value follows."""
ONLY_RLOO = ("samples", "max_new_tokens", "reward", "score")


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status; raises InputError for what the user can fix."""
    from coh_lightning.cli.preview import sorted_words

    own, settings = sorted_words(argv, OWN, "trl")
    options = _options().parse_args(own)
    _check(options, settings)
    if find_spec("trl") is None:
        raise InputError("trl: the package trl is not installed; install it with pip install 'coh_lightning[trl]'.")
    with contextlib.redirect_stdout(sys.stderr):
        return _run(options, settings)


def _options() -> argparse.ArgumentParser:
    rows = "\n".join(
        f"  {name:<7} --steps {it.steps} --batch {it.batch} --lr {it.lr:g}"
        + (f" --beta {it.beta:g}" if it.beta is not None else "")
        + (f" --samples {it.samples}" if it.samples > 1 else "")
        for name, it in TRAINERS.items()
    )
    parser = CommandParser(
        prog="coh trl",
        usage=f"%(prog)s {{{','.join(TRAINERS)}}} --output FOLDER [options] --config FILE ... [--data.KEY=VALUE ...]",
        description="Train a baseline with TRL on the same feedback: DPO, KTO, a reward model, RL against a reward.",
        epilog=f"""defaults, which suit the embedded world:
{rows}

settings, as for fit:
  --config FILE              a configuration; its training records are trained on, its method says what is better
  --model.name_or_path=NAME  the model to start from: a Hugging Face folder or name, or world
  --data.KEY=VALUE           any setting of the data

The folder is a Hugging Face model, which `coh test` evaluates like a model without feedback sentences, and {DONE}:
settings, losses by step, seconds, epochs, tokens. An interrupted command continues where it was saved last.

examples:
  coh trl dpo --config conf/experiment/world_sft_best.yaml --output runs/dpo
  coh trl reward --config conf/experiment/world_sft_best.yaml --output runs/reward
  coh trl rloo --config conf/experiment/world_sft_best.yaml --reward runs/reward --output runs/rloo
  coh test --config conf/experiment/world_sft_best.yaml --model.name_or_path=runs/dpo""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("trainer", choices=TRAINERS)
    add("--output", metavar="FOLDER", type=Path, help="new; the model and its tokenizer")
    add("--steps", metavar="N", type=int, help="optimizer steps")
    add("--batch", metavar="N", type=int, help="per step: pairs (dpo, reward), completions (kto), prompts (rloo)")
    add("--micro-batch", metavar="N", type=int, help="rows in one forward pass, for memory (default: all of a step)")
    add("--lr", metavar="X", type=float, help="peak learning rate")
    add("--beta", metavar="X", type=float, help="weight of the divergence from the model that it starts from")
    add("--seed", metavar="N", type=int, default=0, help="of order, new weights and sampling (default: %(default)s)")
    add("--samples", metavar="N", type=int, help="rloo: completions of each prompt")
    add("--max-new-tokens", metavar="N", type=int, help="rloo: longest completion (default: 64)")
    add(
        "--reward",
        metavar="REWARD",
        help="rloo: a folder of `coh trl reward`, or a scorer (world, package.module:name)",
    )
    add("--score", metavar="NAME", help="rloo: which number of the scorer (default: overall, or the only one)")
    add("--save-every", metavar="N", type=int, default=100, help="steps between checkpoints (default: %(default)s)")
    add("--bf16", action="store_true", help="mixed precision on a GPU (default: 32 bits)")
    add("--gradient-checkpointing", action="store_true", help="less memory, about a third more time")
    return parser


def _check(options: argparse.Namespace, settings: Sequence[str]) -> None:
    name = options.trainer
    if options.output is None:
        raise InputError("trl: --output is missing; name a new folder.")
    if not settings:
        raise InputError("trl: there is no feedback; give --config FILE, or --data.feedback=FILE.")
    for key in ("steps", "batch", "micro_batch", "samples", "max_new_tokens", "save_every"):
        if (value := getattr(options, key)) is not None and value < 1:
            raise InputError(f"trl: --{key.replace('_', '-')} is {value}; it must be at least 1.")
    if options.lr is not None and not options.lr > 0:
        raise InputError(f"trl: --lr is {options.lr}; it must be > 0.")
    if options.beta is not None and (not options.beta >= 0 or name == "reward"):
        why = "a reward model has none" if name == "reward" else "it can't be negative"
        raise InputError(f"trl: --beta is {options.beta:g}, but {why}; leave it out, or change it.")
    for key in ONLY_RLOO:
        if getattr(options, key) is not None and name != "rloo":
            raise InputError(f"trl: --{key.replace('_', '-')} is an option of rloo, not of {name}; leave it out.")
    for key in ("batch", "micro_batch"):
        if name == "kto" and getattr(options, key) == 1:
            why = "KTO compares completions within a forward pass"
            raise InputError(f"trl: --{key.replace('_', '-')} is 1, but {why}; give 2 or more.")
    if name == "rloo" and options.reward is None:
        raise InputError("trl: --reward is missing; give a folder of `coh trl reward`, or a scorer such as world.")
    if name == "rloo" and options.samples == 1:
        raise InputError("trl: --samples is 1, but a completion is compared with others of its prompt; give 2 or more.")


def _run(options: argparse.Namespace, settings: Sequence[str]) -> int:
    from coh_lightning.baselines import examples as rows
    from coh_lightning.cli.preview import configured
    from coh_lightning.model.tokenizer import choose_tokenizer

    data = configured(settings)
    if data.spec is None or data.spec.name_or_path is None:
        raise InputError("trl: no model is named; give --model.name_or_path=NAME (a Hugging Face folder, or world).")
    if data.spec.checkpoint is not None:
        named = f"trl: model.name_or_path is {data.spec.checkpoint}, a checkpoint"
        raise InputError(f"{named}, and TRL starts from Hugging Face folders; make one with `coh export` and name it.")
    choice = choose_tokenizer(data.tokenizer_name, data.spec, data.own_feedback)
    data.notes += [] if choice.note is None else [choice.note]
    prompter = rows.plain_prompter(data, choice.tokenizer)
    splits = data.records_by_split()
    defaults = TRAINERS[options.trainer]
    given = {name: getattr(options, name) for name in ("steps", "batch", "lr", "beta", "samples")}
    chosen = {name: getattr(defaults, name) if value is None else value for name, value in given.items()}
    examples, requests = _examples(options, data, prompter, splits["train"], chosen["batch"])
    held_out = None
    if options.trainer == "reward":
        held_out = _examples(options, data, prompter, splits["validation"], chosen["batch"])[0]
    rows.check_enough(
        examples, chosen["batch"], {"kto": "completions", "rloo": "prompts"}.get(options.trainer, "pairs")
    )
    run = Run(
        trainer=options.trainer,
        folder=options.output,
        model=data.spec.name_or_path,
        **chosen,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens or 64,
        reward=options.reward if options.score is None else f"{options.reward}#{options.score}",
        micro_batch=options.micro_batch,
        bf16=options.bf16,
        gradient_checkpointing=options.gradient_checkpointing,
        save_every=options.save_every,
        rows={"train": examples.digest, "tokenizer": prompter.tokens.encoder.tokenizer_hash[:16]},
    )
    if run.is_done():
        print(f"{run.folder} is done: trained with these settings before")
        return 0
    reward = None
    if options.trainer == "rloo":
        reward = _reward(options, prompter, requests, run.max_new_tokens)
    run.begin()
    for line in [*data.notes, *(f"{times:,} left out: {why}" for why, times in examples.left_out.items())]:
        print(line)
    from coh_lightning.baselines.training import train

    words: dict[str, Any] = {"stop_ids": prompter.stop_ids, "requests": requests, "reward": reward}
    trained = train(run, data.spec, choice.tokenizer, examples, **words)
    tokenizer = choice.tokenizer
    if run.trainer == "reward":
        from coh_lightning.baselines.reward_template import reward_tokenizer

        tokenizer = reward_tokenizer(tokenizer, prompter.tokens.layout, pad_id=trained.model.config.pad_token_id)
    trained.save(run, tokenizer, lambda folder: _measured(folder, held_out))
    figures = trained.figures
    did = (
        f"{counted(figures['steps'], 'step')}, {figures['epochs']:.1f} epochs, {figures['cpu_seconds']:.0f} CPU seconds"
    )
    print(f"{run.folder}: {did}")
    return 0


def _measured(folder: Path, held_out: Examples | None) -> dict[str, Any]:
    """The accuracy of a reward model on held-out pairs."""
    if held_out is None or not held_out.rows:
        return {}
    from coh_lightning.baselines.rewards import accuracy
    from coh_lightning.generation.reward_model import RewardModel

    share = accuracy(RewardModel(folder), held_out.rows)
    print(f"{share:.1%} of {len(held_out.rows):,} held-out pairs in the right order")
    return {"held_out": {"pairs": len(held_out.rows), "accuracy": share}}


def _examples(
    options: argparse.Namespace,
    data: CoHDataModule,
    prompter: Prompter,
    records: Sequence[Feedback],
    batch: int,
) -> tuple[Examples, Any]:
    """The rows of the trainer, and the requests of RLOO by record."""
    from coh_lightning.baselines import examples as rows

    if options.trainer == "rloo":
        return rows.prompts(records, prompter)
    left_out: dict[str, int] = {}
    form = "trl-unpaired" if options.trainer == "kto" else "trl-pairs"
    made = converted(records, form, data.method, left_out)
    encoded = rows.Encoded(prompter, max_tokens=data.max_chain_tokens)
    if options.trainer == "kto":
        found = rows.unpaired(made, encoded, batch=min(options.micro_batch or batch, batch), seed=options.seed)
    else:
        found = rows.pairs(made, encoded)
    if options.trainer == "reward":
        found = rows.reward_pairs(found)
    found.left_out.update(left_out)
    return found, None


def converted(
    records: Iterable[Feedback], form: str, method: Method, left_out: dict[str, int]
) -> Iterator[tuple[Feedback, Mapping[str, Any]]]:
    """Each record with its rows in one of TRL's forms; adds the records without a row to `left_out`."""
    from coh_lightning.cli.convert import Report
    from coh_lightning.cli.convert import rows as trl_rows

    report = Report()
    for record in records:
        for row in trl_rows([record], form, method, report):
            yield record, row.columns
    left_out.update({f"records, {reason}": times for reason, times in report.left_out.items()})


def _reward(options: argparse.Namespace, prompter: Prompter, requests: Any, max_new_tokens: int) -> Reward:
    """What RLOO maximizes. Raises InputError if it is neither a reward model of ours nor a scorer."""
    from coh_lightning.baselines.rewards import Reward
    from coh_lightning.generation.reward_model import RewardModel
    from coh_lightning.generation.scorers import load_scorer
    from coh_lightning.sequences.encoder import Encoder
    from coh_lightning.worlds import TABLE

    folder = Path(options.reward).expanduser()
    if options.reward in TABLE or not folder.is_dir():  # a folder of that name is ./world
        if "/" in options.reward:
            raise InputError(f"trl: --reward is {options.reward}, and there is no such folder; give one, or a scorer.")
        return Reward(prompter, requests, max_new_tokens, scorer=load_scorer(options.reward), name=options.score)
    if options.score is not None:
        raise InputError(f"trl: --score is {options.score}, but a reward model gives one number; leave it out.")
    model = RewardModel(folder)
    if Encoder(model.tokenizer).tokenizer_hash != prompter.tokens.encoder.tokenizer_hash:
        what = f"trl: the reward model {folder} has another tokenizer than the model, and it must read the same ids"
        raise InputError(f"{what}; train it from the same model with `coh trl reward`.")
    # its own pad token may end a completion that was cut; without one, a token is chosen that ends none of the batch
    model.model.config.get_text_config().pad_token_id = None
    return Reward(prompter, requests, max_new_tokens, model=model)
