"""The model card of an exported folder: what the model is, how it is asked, on which data and by which method it was
trained, its figures, its limits. Files only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.worlds import WORLD


def model_card(
    name: str,
    saved: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    asks: Mapping[tuple[str, str | None], Mapping[str, str]],
    *,
    parameters: int,
    notes: Sequence[str],
    run: Path | None,
    adapter: bool,
    spelled: Sequence[str] = (),
) -> str:
    """The card, in Markdown with the head that the hub reads.

    Args:
        name: Of the folder.
        saved: What the checkpoint says of its model.
        checkpoint: `global_step` and `epoch` of it, where there are any.
        asks: Feedback sentences by name for each (task, aspect), the commonest first.
        parameters: How many the model has.
        notes: What the user should know of its template, a sentence each.
        run: Run folder, for data and figures.
        adapter: Whether the folder holds adapters alone.
        spelled: Added tokens that were spelled out in people's text, the special ones left out.
    """
    settings, base = saved["data"], saved.get("base")
    head: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base and base != WORLD and not Path(base).exists():  # a name on the hub
        head["base_model"] = base
    head["tags"] = ["chain-of-hindsight", "coh_lightning"]
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n\n{_about(saved, parameters, adapter)}",
        f"## How it is asked\n\n{_asking(asks)}",
        f"## Data\n\n{_data(run)}",
        f"## Method\n\n{_method(saved, checkpoint, run)}",
        f"## Figures\n\n{_figures(run)}",
        f"## Limits\n\n{_limits(settings, saved.get('lora'), notes, spelled)}",
    ]
    return "\n\n".join(sections) + "\n"


def _about(saved: Mapping[str, Any], parameters: int, adapter: bool) -> str:
    settings, base = saved["data"], saved.get("base")
    started = (
        f"that began as `{Path(base).name if Path(base).exists() else base}`"
        if base
        else "that began with random weights"
    )
    what = "Adapters (LoRA) for a model" if adapter else "A model"
    return (
        f"{what} of the architecture {saved['model']['model_type']} with {parameters / 1e6:,.1f} M parameters "
        f"{started}, trained on human feedback by the method "
        f"`{settings['method']['name']}` ([Chain of Hindsight](https://arxiv.org/abs/2302.02676) and its relatives) "
        f"with coh_lightning {version('coh_lightning')}."
    )


def _asking(asks: Mapping[tuple[str, str | None], Mapping[str, str]]) -> str:
    (first, sentences), *others = asks.items()
    if not any(sentences.values()):
        return "By its chat template, which lays prompts out as in training. It was trained without feedback sentences."
    lines = [
        "Its chat template puts the good feedback sentence where it stood in training, so that pipelines and servers "
        "that read chat templates need no code for it. "
        'The template variable `feedback` names another sentence, `feedback_sentence` gives any other (`""`: none):',
        "",
        "```python",
        'tokenizer.apply_chat_template(messages, add_generation_prompt=True)  # feedback="good"',
        f'tokenizer.apply_chat_template(messages, add_generation_prompt=True, feedback="{list(sentences)[-1]}")',
        "```",
        "",
        "| `feedback` | sentence |",
        "| --- | --- |",
        *(f"| `{name}` | {_cell(sentence)} |" for name, sentence in sentences.items()),
    ]
    further = [(key, other) for key, other in others if other != sentences]
    if further:
        lines += [
            "",
            f"The table is for {_task(*first)}, most of the training data. For others, as `feedback_sentence`:",
            "",
        ]
        lines += [
            f"* {_task(*key)}: {', '.join(f'{_cell(sentence)} ({name})' for name, sentence in other.items())}"
            for key, other in further
        ]
    return "\n".join(lines)


def _task(task: str, aspect: str | None) -> str:
    return f"the task `{task}`" + (f", judged on `{aspect}`" if aspect else "")


def _data(run: Path | None) -> str:
    file = run / "data.json" if run is not None else None
    if file is None or not file.is_file():
        return "Unknown: the checkpoint was exported without its run folder."
    report = json.loads(file.read_text(encoding="utf-8"))
    lines = ["| split | records | used | chains |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {count['records']:,} | {count['used']:,} | {count['chains']:,} |"
        for name, count in report["splits"].items()
    ]
    for source, counts in report.get("sources", {}).get("train", {}).items():
        lines += [*([""] if lines[-1].startswith("|") else []), f"* training records of {source}: {_plain(counts)}"]
    if report["rejected"]:
        lines += [
            "",
            "Left out: " + ", ".join(f"{times:,} {reason}" for reason, times in report["rejected"].items()) + ".",
        ]
    if report["regulariser"]["rows_per_step"]:
        lines += [
            "",
            f"Beside the feedback, {report['regulariser']['tokens']:,} tokens of plain text (the pretraining "
            "regulariser).",
        ]
    return "\n".join(lines)


def _method(saved: Mapping[str, Any], checkpoint: Mapping[str, Any], run: Path | None) -> str:
    settings = saved["data"]
    facts: dict[str, object] = {
        f"method: {name}": value for name, value in settings["method"].items() if name != "name"
    }
    facts["wording"] = settings["wording"]["name"]
    facts |= {f"prompt format: {name}": value for name, value in settings["prompt_format"].items()}
    if saved.get("lora"):
        facts |= {f"LoRA: {name}": value for name, value in saved["lora"].items() if value is not None}
    facts |= {
        name.replace("global_step", "optimiser steps"): checkpoint[name]
        for name in ("global_step", "epoch")
        if name in checkpoint
    }
    config = (
        yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        if run is not None and (run / "config.yaml").is_file()
        else {}
    )
    model = config.get("model") or {}
    facts |= {
        name: model[name] for name in ("lr", "betas", "weight_decay", "warmup_share", "final_lr_share") if name in model
    }
    return "\n".join(
        [
            "| setting | value |",
            "| --- | --- |",
            *(f"| {name} | {_cell(_plain(value))} |" for name, value in facts.items()),
        ]
    )


def _figures(run: Path | None) -> str:
    found: dict[str, str] = {}
    held_out = "the held-out test split (`test.csv` of the run)"
    if run is not None and (run / "test.csv").is_file():
        found = _last(run / "test.csv", "test/")
    if not found and run is not None and (run / "metrics.csv").is_file():
        found, held_out = (
            _last(run / "metrics.csv", "val/"),
            "the validation split (`metrics.csv` of the run), which may have chosen the checkpoint",
        )
    if not found:
        return "None: the model was not tested before it was exported. `python -m coh_lightning test` does it."
    lines = [
        f"On {held_out}. The names are those of coh_lightning's README.",
        "",
        "| figure | value |",
        "| --- | --- |",
    ]
    return "\n".join([*lines, *(f"| {name} | {float(value):.4g} |" for name, value in sorted(found.items()))])


def _last(file: Path, prefix: str) -> dict[str, str]:
    """The last value of each figure in a file of metrics."""
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    return {name: value for row in rows for name, value in row.items() if name and name.startswith(prefix) and value}


def _limits(
    settings: Mapping[str, Any], lora: Mapping[str, Any] | None, notes: Sequence[str], spelled: Sequence[str]
) -> str:
    kept = settings["prompt_format"].get("kept_tokens") or []
    others = f" (and {_code(spelled)})" if spelled else ""
    lines = [
        "* Good means what the people (or rules) behind the feedback called good; the model has learned their words "
        "for it, with their mistakes.",
        "* Under a bad sentence it writes worse on purpose. That is for studies, not for users.",
        f"* In training a prompt was cut to {settings['max_prompt_tokens']} tokens; the chat template cuts nothing, "
        "and longer prompts are outside of what was trained.",
        f"* In training, special tokens in people's text{others} were spelled out. `apply_chat_template(..., "
        "sanitize_control_tokens=True)` of newer transformers does so "
        "too; without it they are taken for what they stand for, so clean what users send.",
        *(
            [f"* In training, {_code(kept)} in people's text were tokens, as `apply_chat_template` has them."]
            if kept
            else []
        ),
        "* The chat template reads turns of text by system, user and assistant; other roles, images, tools and calls "
        "of them raise an error, since none was trained on.",
        "* Nothing was done here for safety or against false statements. The licences of the first model and of the "
        "data hold; they are not known here.",
    ]
    if lora and lora.get("quantise"):
        lines.append(
            f"* The adapters were trained beside weights in {lora['quantise']}, and stand here beside the full ones, "
            "which differ from those a little."
        )
    return "\n".join([*lines, *(f"* {note}" for note in notes)])


def _code(tokens: Sequence[str], number: int = 8) -> str:
    return ", ".join(f"`{token}`" for token in tokens[:number]) + (
        f" and {len(tokens) - number} more" if len(tokens) > number else ""
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one not in ({}, []))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return (
        json.dumps(value, ensure_ascii=False)
        if isinstance(value, str) and (not value or value.isspace())
        else str(value)
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
