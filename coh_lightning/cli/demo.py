"""`python -m coh_lightning.cli.demo RUN ...`: compare runs on the embedded world with their base model.

Each model writes summaries of posts that no run has seen, with the sentence for a good one and, if it was trained with
sentences, with the one for a bad one; sampled at temperature 1 and greedily, since greedy decoding hides most
differences. The world's rater scores them. General ability is the share of questions about a post answered correctly.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from coh_lightning import CoHModule, Feedback, InputError, Method, PromptFormat, Sampling, Wording
from coh_lightning.command_line import CommandParser
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.prompter import Prompter
from coh_lightning.io import atomic_write
from coh_lightning.world import evaluate, posts
from coh_lightning.world.feedback import BATCH_SIZE, HABITS_BASE, world_prompts

MEASURES = ("accuracy", "coverage", "coherence", "overall")
BASELINE = "sft_best"


@dataclass(frozen=True)
class Line:
    """One line of the table: a model under one condition."""

    row: evaluate.ScoreRow
    """Scores of the sampled summaries, and their difference to `sft_best`, prompt by prompt."""
    greedy: float
    """Overall score of the greedy ones."""
    ability: float
    bad: bool
    """Asked for bad summaries."""
    texts: Sequence[str]
    overall: Sequence[float]


def compare(
    runs: Sequence[Path], *, prompts: int, questions: int, temperature: float = 1.0, seed: int = 0
) -> tuple[list[Line], list[Feedback]]:
    """The base model and every run on the same posts. Raises InputError for a folder without a finished run."""
    records, exam = world_prompts(prompts, seed=seed), posts.questions(questions, seed=seed)
    scores: dict[str, list[dict[str, float]]] = {}
    others: dict[str, tuple[float, float, bool, list[str]]] = {}
    tokenizer = AutoTokenizer.from_pretrained(HABITS_BASE)
    for run in track([None, *runs], "writing and judging summaries", total=len(runs) + 1):
        if run is None:
            lm: Any = AutoModelForCausalLM.from_pretrained(HABITS_BASE)
            sft = Method(orders=("p",), sentences="none")  # the base model is prompted as after SFT
            form = PromptFormat(before_marker=" ", before_output=" ")  # of conf/quickstart.yaml
            prompter = Prompter.make(tokenizer, sft, Wording(), form, max_prompt_tokens=512)
        else:
            checkpoint = run / "checkpoints" / "last.ckpt"
            if not checkpoint.is_file():
                raise InputError(f"{run} has no checkpoints/last.ckpt; give the folder of a finished run of `fit`.")
            module = CoHModule.load_from_checkpoint(checkpoint, map_location="cpu")
            assert module.trained_with is not None
            lm, prompter = module.lm, Prompter.from_settings(module.trained_with, tokenizer)
        ability = evaluate.general_ability(lm, tokenizer, exam)
        steers = prompter.method.sentences != "none"
        for condition in ("good", "bad") if steers else ("good",):
            sampled = _summaries(lm, prompter, records, condition, temperature=temperature, seed=seed)
            greedy = _rated(records, _summaries(lm, prompter, records, condition, temperature=0.0, seed=seed))
            name = (run.name if run else "base") + (f", asked for {condition}" if steers else "")
            scores[name] = _rated(records, sampled)
            overall = sum(one["overall"] for one in greedy) / len(greedy)
            others[name] = (overall, ability, condition == "bad", sampled)
    rows = evaluate.table(scores, baseline=BASELINE if BASELINE in scores else None)
    return [Line(row, *others[row.name], overall=[one["overall"] for one in scores[row.name]]) for row in rows], records


def _summaries(
    lm: Any, prompter: Prompter, records: Sequence[Feedback], condition: str, *, temperature: float, seed: int
) -> list[str]:
    """One summary per post."""
    requests = [prompter.request(one, condition, prompter.all_conditions(one)[condition]) for one in records]
    sampling = Sampling(max_new_tokens=64, temperature=temperature, batch_size=BATCH_SIZE, seed=seed)
    written = generate(lm, requests, sampling, stop_ids=prompter.stop_ids, pad_id=prompter.pad_id)
    return [prompter.text(one.request, one.ids).strip() for one in written]


def _rated(records: Sequence[Feedback], texts: Sequence[str]) -> list[dict[str, float]]:
    return [evaluate.rate(record.prompt[-1].text, text) for record, text in zip(records, texts, strict=True)]


HEADS = ["", *MEASURES, f"overall - {BASELINE}", "greedy overall", "questions right"]


def _cells(line: Line) -> list[str]:
    found = [line.row.measures[measure] for measure in MEASURES]
    measures = [f"{one.value:.3f} ±{(one.high - one.low) / 2:.3f}" for one in found]
    difference = "" if line.row.difference is None else str(line.row.difference["overall"])
    return [line.row.name, *measures, difference, f"{line.greedy:.3f}", f"{line.ability:.1%}"]


def as_markdown(lines: Sequence[Line]) -> str:
    rows = [HEADS, ["---"] * len(HEADS), *(_cells(line) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in HEADS:
        table.add_column(head.replace(" ", "\n", 1), justify="left" if not head else "right", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line), style="dim" if line.bad else "")
    return table


def samples(lines: Sequence[Line], records: Sequence[Feedback], number: int) -> str:
    """The summaries of the first posts by every model, with their overall scores."""
    shown = []
    for index, record in enumerate(records[:number]):
        written = [f"  {line.row.name:<34}{line.overall[index]:.2f}  {line.texts[index]}" for line in lines]
        shown.append("\n".join([record.prompt[-1].text, *written]))
    return "\n\n".join(shown)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m coh_lightning.cli.demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run of fit on the embedded world")
    add("--prompts", type=int, default=300, help="posts to summarize (default 300)")
    add("--questions", type=int, default=300, help="questions of general ability (default 300)")
    add("--temperature", type=float, default=1.0, help="of the sampled summaries (default 1.0)")
    add("--samples", type=int, default=2, help="posts whose summaries are shown (default 2)")
    add("--output", type=Path, help="folder to write report.md to (default: the folder of the first run's folder)")
    try:
        args = parser.parse_args(argv)
        counts = {"prompts": args.prompts, "questions": args.questions}
        lines, records = compare(args.runs, **counts, temperature=args.temperature)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(as_table(lines))
    note = (
        f"{args.prompts} unseen posts, summaries sampled at temperature {args.temperature:g}; ± is half the width of "
        "a 95 % bootstrap interval over posts. One base model and one run each: another seed changes the figures too."
    )
    console.print(note, style="dim")
    shown = samples(lines, records, args.samples)
    console.print(f"\nScore and summary (temperature {args.temperature:g}):\n", style="bold")
    print(shown)
    output: Path = args.output or args.runs[0].parent
    with atomic_write(output / "report.md") as aside:
        aside.write_text(f"{as_markdown(lines)}\n\n{note}\n\n```\n{shown}\n```\n", encoding="utf-8")
    print(f"\n{output / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
