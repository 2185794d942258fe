"""`python -m coh_lightning.cli.demo RUN ...`: compares the runs of the demo with their base model, by the world's raters.

Each model writes summaries of posts that no run has seen: under the sentence for a good one and, if it was trained with
sentences, under the one for a bad one; sampled at temperature 1 and greedily, since greedy decoding hides most
differences. General ability is the share of questions about a post that it answers correctly.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write

if TYPE_CHECKING:
    from rich.table import Table

    from coh_lightning.feedback.records import Feedback
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.intervals import Interval
    from coh_lightning.world.evaluate import ScoreRow

MEASURES = ("accuracy", "coverage", "coherence", "overall")
BASELINE = "sft_best"


@dataclass(frozen=True)
class Line:
    """One line of the table: a model under one condition."""

    row: ScoreRow
    """Scores of the sampled summaries, and their difference to `sft_best`, prompt by prompt."""
    greedy: float
    """Overall score of the greedy ones."""
    ability: float
    """Share of questions answered correctly."""
    bad: bool
    """Asked for bad summaries."""
    texts: Sequence[str]
    overall: Sequence[float]


def compare(
    runs: Sequence[Path], *, prompts: int, questions: int, temperature: float = 1.0, seed: int = 0
) -> tuple[list[Line], list[Feedback]]:
    """The base model and every run on the same posts. Raises InputError for a folder without a finished run on the
    world.
    """
    from rich.progress import track
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.module import CoHModule
    from coh_lightning.world import evaluate
    from coh_lightning.world.feedback import BASE, world_prompts
    from coh_lightning.world.posts import questions as make_questions

    records = world_prompts(prompts, seed=seed)
    asked_questions = make_questions(questions, seed=seed)
    scores: dict[str, list[dict[str, float]]] = {}
    others: dict[str, tuple[float, float, bool, list[str]]] = {}
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for run in track([None, *runs], "writing and judging summaries", total=len(runs) + 1):
        if run is None:
            lm: Any = AutoModelForCausalLM.from_pretrained(BASE)
            prompter = _base_prompter(tokenizer)
        else:
            module = CoHModule.load_from_checkpoint(_checkpoint(run), map_location="cpu")
            assert module.trained_with is not None
            lm, prompter = module.lm, Prompter.from_settings(module.trained_with, tokenizer)
        ability = evaluate.general_ability(lm, tokenizer, asked_questions)
        steers = prompter.method.sentences != "none"
        for ask in ("good", "bad") if steers else ("good",):
            texts, greedy = (
                _summaries(lm, prompter, records, ask, temperature=each, seed=seed) for each in (temperature, 0.0)
            )
            name = (run.name if run else "base") + (f", asked for {ask}" if steers else "")
            scores[name] = _rated(records, texts)
            greedy_overall = [one["overall"] for one in _rated(records, greedy)]
            others[name] = (sum(greedy_overall) / len(greedy_overall), ability, ask == "bad", texts)
    rows = evaluate.table(scores, baseline=BASELINE if BASELINE in scores else None)
    return [Line(row, *others[row.name], overall=[one["overall"] for one in scores[row.name]]) for row in rows], records


def _summaries(
    lm: Any, prompter: Prompter, records: Sequence[Feedback], ask: str, *, temperature: float, seed: int
) -> list[str]:
    """One summary a post."""
    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.sampling import Sampling
    from coh_lightning.world.feedback import BATCH_SIZE

    requests = [prompter.request(record, ask, prompter.all_conditions(record)[ask]) for record in records]
    sampling = Sampling(max_new_tokens=64, temperature=temperature, batch_size=BATCH_SIZE, seed=seed)
    written = generate(lm, requests, sampling, stop_ids=prompter.stop_ids, pad_id=prompter.pad_id)
    return [prompter.text(one.request, one.ids).strip() for one in written]


def _base_prompter(tokenizer: Any) -> Prompter:
    """The base model is prompted as SFT is: without sentences, in the format of conf/quickstart.yaml."""
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.sequences.method import Method
    from coh_lightning.sequences.prompt_format import PromptFormat
    from coh_lightning.sequences.wording import Wording

    method = Method(orders=("p",), sentences="none")
    form = PromptFormat(before_marker=" ", before_output=" ")
    return Prompter.make(tokenizer, method, Wording(), form, max_prompt_tokens=512)


def _rated(records: Sequence[Feedback], texts: Sequence[str]) -> list[dict[str, float]]:
    from coh_lightning.world.evaluate import rate

    return [rate(record.prompt[-1].text, text) for record, text in zip(records, texts, strict=True)]


def _checkpoint(run: Path) -> Path:
    path = run / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise InputError(f"{run} has no checkpoints/last.ckpt; give the folder of a finished run of `fit`.")
    return path


def _shown(value: Interval) -> str:
    return f"{value.value:.3f} ±{(value.high - value.low) / 2:.3f}"


def _cells(line: Line) -> list[str]:
    difference = "" if line.row.difference is None else str(line.row.difference["overall"])
    return [
        line.row.name,
        *(_shown(line.row.measures[measure]) for measure in MEASURES),
        difference,
        f"{line.greedy:.3f}",
        f"{line.ability:.1%}",
    ]


HEADS = ["", *MEASURES, f"overall - {BASELINE}", "greedy overall", "questions right"]


def as_markdown(lines: Sequence[Line]) -> str:
    """The table for report.md."""
    rows = [HEADS, ["---"] * len(HEADS), *(_cells(line) for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_table(lines: Sequence[Line]) -> Table:
    """The table for a terminal."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in HEADS:
        table.add_column(head.replace(" ", "\n", 1), justify="left" if not head else "right", no_wrap=True)
    for line in lines:
        table.add_row(*_cells(line), style="dim" if line.bad else "")
    return table


def samples(lines: Sequence[Line], records: Sequence[Feedback], number: int) -> str:
    """The summaries of some posts by every model."""
    shown = []
    for index in range(number):
        shown.append(
            f"{records[index].prompt[-1].text}\n"
            + "\n".join(f"  {line.row.name:<34}{line.overall[index]:.2f}  {line.texts[index]}" for line in lines)
        )
    return "\n\n".join(shown)


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m coh_lightning.cli.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run of fit on the embedded world"
    )
    parser.add_argument("--prompts", type=int, default=300, help="posts to summarize (default 300)")
    parser.add_argument("--questions", type=int, default=300, help="questions of general ability (default 300)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampled summaries (default 1.0)")
    parser.add_argument("--samples", type=int, default=2, help="posts whose summaries are shown (default 2)")
    parser.add_argument(
        "--output", type=Path, help="folder to write report.md to (default: the folder of the first run's folder)"
    )
    try:
        args = parser.parse_args(argv)
        from rich.console import Console

        lines, records = compare(
            args.runs, prompts=args.prompts, questions=args.questions, temperature=args.temperature
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(as_table(lines))
    note = (
        f"{args.prompts} unseen posts, summaries sampled at temperature {args.temperature:g}; ± is half the width of "
        "a 95 % bootstrap interval over posts. One base model and one run each: "
        "another seed moves the figures too."
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
