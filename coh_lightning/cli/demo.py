"""`python -m coh_lightning.cli.demo RUN ...`: compare runs on the embedded world with their base model.

Each model writes summaries of posts that no run has seen, greedily and sampled at temperatures 0.7 and 1; under the
sentence for a good one and the one for a bad one, if it was trained with sentences; and with guidance, if these are
bare. The world's rater scores them. General ability is the share of questions about a post answered correctly.

    RUNS/sft_best, RUNS/coh, ...  ->  a table in the terminal, RUNS/report.md, RUNS/report.html
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from coh_lightning.cli.demo_report import Report, Row, as_markdown, show
from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write
from coh_lightning.pages.page import write_page
from coh_lightning.world import evaluate, posts
from coh_lightning.world.feedback import BATCH_SIZE, TEST_SEED, world_prompts
from coh_lightning.worlds import TABLE, resolve

DATA, CHECKPOINT = "data.json", "checkpoints/last.ckpt"
TEMPERATURES = (1.0, 0.7, 0.0)
GUIDANCE = 2.0
SENTENCES = "polarity"
"""Guidance is shown for runs with these sentences, the bare ones."""


def judge(run: Path | None, *, base: str, prompts: int, questions: int, seed: int = TEST_SEED) -> list[Row]:
    """The rows of one run, or of the base model (None), which is a folder or a name on the hub."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lm, prompter, epochs = _loaded(run, base, tokenizer)
    ability = evaluate.general_ability(lm, tokenizer, posts.questions(questions, seed=seed))
    records = world_prompts(prompts, seed=seed)
    rows = []
    for condition, guidance in _variants(prompter.method.sentences):
        texts = {
            temperature: _summaries(lm, prompter, records, condition, guidance, temperature=temperature, seed=seed)
            for temperature in TEMPERATURES
        }
        scores = {
            temperature: [
                evaluate.rate(record.prompt[-1].text, text) for record, text in zip(records, written, strict=True)
            ]
            for temperature, written in texts.items()
        }
        name = "base" if run is None else run.name
        rows.append(Row(name, condition, guidance, scores, texts, ability, questions, epochs))
    return rows


def _variants(sentences: str) -> list[tuple[str, float | None]]:
    """The conditions and the strengths of guidance to write under; 0 is its cutoff alone, the control."""
    if sentences == "none":
        return [("", None)]
    guided = [("good", 0.0), ("good", GUIDANCE)] if sentences == SENTENCES else []
    return [("good", None), ("bad", None), *guided]


def _loaded(run: Path | None, base: str, tokenizer: Any) -> tuple[Any, Any, float | None]:
    """Model, prompter and epochs of training."""
    from transformers import AutoModelForCausalLM

    from coh_lightning import CoHModule, Method, PromptFormat, Wording
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.model.checkpoints import read_checkpoint

    if run is None:
        sft = Method(orders=("p",), sentences="none")  # the base model is prompted as after SFT
        form = PromptFormat(before_marker=" ", before_output=" ")  # of conf/quickstart.yaml
        prompter = Prompter.make(tokenizer, sft, Wording(), form, max_prompt_tokens=512)
        return AutoModelForCausalLM.from_pretrained(base), prompter, None
    module = CoHModule.load_from_checkpoint(run / CHECKPOINT, map_location="cpu")
    assert module.trained_with is not None
    steps = read_checkpoint(run / CHECKPOINT)["global_step"]
    epochs = steps / json.loads((run / DATA).read_text(encoding="utf-8"))["steps_per_epoch"]
    return module.lm, Prompter.from_settings(module.trained_with, tokenizer), epochs


def base_of(runs: Sequence[Path]) -> str:
    """The base model of all runs. Raises InputError as `compare` does."""
    from coh_lightning.model.checkpoints import read_checkpoint_info

    bases: dict[str, Path] = {}
    for run in runs:
        for name in (DATA, CHECKPOINT):
            if not (run / name).exists():
                raise InputError(f"{run} has no {name}; give the folder of a finished run of `fit`.")
        name = read_checkpoint_info(run / CHECKPOINT)["base"]
        if name is None:
            raise InputError(f"{run} began from random weights, so it has no base model to compare with; leave it out.")
        bases.setdefault(str(resolve("model", name)) if name in TABLE else name, run)
    if len(bases) > 1:
        (one, first), (other, second), *_ = bases.items()
        what = f"{first} began from {one}, and {second} from {other}"
        raise InputError(f"{what}; compare runs from one base model at a time.")
    return next(iter(bases))


def _summaries(
    lm: Any, prompter: Any, records: Sequence[Any], condition: str, guidance: float | None, **settings: Any
) -> list[str]:
    """One summary per post."""
    from coh_lightning import Sampling
    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.guidance import with_other_prompt

    condition = condition or "good"
    requests = [prompter.request(one, condition, prompter.all_conditions(one)[condition]) for one in records]
    sampling = Sampling(max_new_tokens=64, batch_size=BATCH_SIZE, guidance=guidance, **settings)
    if sampling.guidance:
        requests = [with_other_prompt(prompter, request, sampling.guidance_from) for request in requests]
    written = generate(lm, requests, sampling, stop_ids=prompter.stop_ids, pad_id=prompter.pad_id)
    return [prompter.text(one.request, one.ids).strip() for one in written]


def compare(runs: Sequence[Path], *, prompts: int, questions: int, jobs: int = 1) -> list[Row]:
    """The rows of the base model and of every run on the same posts, `jobs` models at a time.

    Raises:
        InputError: a folder without a finished run, or runs that began from different base models.
    """
    models: list[Path | None] = [None, *runs]
    counts: dict[str, Any] = {"base": base_of(runs), "prompts": prompts, "questions": questions}
    with ProcessPoolExecutor(min(jobs, len(models)), mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(judge, run, **counts) for run in models]
        for done in track(as_completed(pending), "writing and judging summaries", total=len(pending), transient=True):
            done.result()  # an error ends the command at once
    return [row for each in pending for row in each.result()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog="python -m coh_lightning.cli.demo", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run of fit on the embedded world")
    add("--prompts", type=int, default=500, help="posts to summarize (default %(default)s)")
    add("--questions", type=int, default=300, help="questions of general ability (default %(default)s)")
    add("--samples", type=int, default=3, help="posts whose summaries are shown in the reports (default %(default)s)")
    add("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="models judged at a time (default %(default)s)")
    add(
        "--output",
        type=Path,
        help="folder of report.md and report.html (default: that of the first run's folder)",
    )
    try:
        args = parser.parse_args(argv)
        for name in ("prompts", "questions", "samples", "jobs"):
            if getattr(args, name) < 1:
                parser.error(f"--{name} is {getattr(args, name)}; it must be at least 1")
        rows = compare(args.runs, prompts=args.prompts, questions=args.questions, jobs=args.jobs)
        texts = [record.prompt[-1].parts[0].text for record in world_prompts(args.prompts)]
        report = Report.of(rows, texts, shown=args.samples)
        folder: Path = args.output or args.runs[0].parent
        with atomic_write(folder / "report.md") as aside:
            aside.write_text(as_markdown(report), encoding="utf-8")
        write_page(folder / "report.html", "demo.html.j2", **report.page())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(report, Console(width=None if sys.stdout.isatty() else 80))
    print(f"\n{folder / 'report.md'}\n{folder / 'report.html'}   (open it in a browser)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
