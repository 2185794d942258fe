"""The model card of an exported folder (model_card.jinja): what the model is, how to prompt it, its data and method,
its figures, its limits. Reads files only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.worlds import WORLD

OPTIMIZATION = ("lr", "betas", "weight_decay", "warmup_ratio", "min_lr_ratio")
"""Settings of the model in a run's config.yaml that the card shows."""


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
    """The card, in Markdown with the YAML header that the hub reads.

    Args:
        name: Of the folder.
        saved: What the checkpoint says about its model.
        checkpoint: Its `global_step` and `epoch`, if any.
        asks: Feedback sentences by name for each (task, aspect), the most common first.
        parameters: Number of parameters.
        notes: What the user should know about its template, a sentence each.
        run: Run folder, for data and figures.
        adapter: Whether the folder holds adapters only.
        spelled: Added tokens that were spelled out in people's text, without the special ones.
    """
    from jinja2 import Environment

    base = saved.get("base")
    header: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base and base != WORLD and not Path(base).exists():  # a name on the hub
        header["base_model"] = base
    header["tags"] = ["chain-of-hindsight", "coh_lightning"]
    (first, sentences), *others = asks.items()
    figures, held_out = _figures(run)
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"cell": _cell, "plain": _plain, "code": _code}
    template = resources.files("coh_lightning.export").joinpath("model_card.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        header=yaml.safe_dump(header, sort_keys=False),
        name=name,
        saved=saved,
        settings=saved["data"],
        base=Path(base).name if base and Path(base).exists() else base,
        version=version("coh_lightning"),
        parameters=parameters,
        adapter=adapter,
        sentences=sentences,
        task=_task(*first),
        others=[(_task(*key), theirs) for key, theirs in others if theirs != sentences],
        report=_report(run),
        facts=_facts(saved, checkpoint, run),
        figures=figures,
        held_out=held_out,
        spelled=spelled,
        notes=notes,
    )


def _task(task: str, aspect: str | None) -> str:
    return f"the task `{task}`" + (f", rated for `{aspect}`" if aspect else "")


def _report(run: Path | None) -> Any:
    file = run / "data.json" if run is not None else None
    return json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else None


def _facts(saved: Mapping[str, Any], checkpoint: Mapping[str, Any], run: Path | None) -> dict[str, object]:
    settings = saved["data"]
    facts = {f"method: {name}": value for name, value in settings["method"].items() if name != "name"}
    facts["wording"] = settings["wording"]["name"]
    facts |= {f"prompt format: {name}": value for name, value in settings["prompt_format"].items()}
    facts |= {f"LoRA: {name}": value for name, value in (saved.get("lora") or {}).items() if value is not None}
    for key, name in (("global_step", "optimizer steps"), ("epoch", "epoch")):
        if key in checkpoint:
            facts[name] = checkpoint[key]
    file = run / "config.yaml" if run is not None else None
    config = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else {}
    model = config.get("model") or {}
    return facts | {name: model[name] for name in OPTIMIZATION if name in model}


def _figures(run: Path | None) -> tuple[dict[str, str], str]:
    """The last value of each held-out figure, and where it comes from."""
    for name, prefix, source in (
        ("test.csv", "test/", "the held-out test split (`test.csv` of the run)"),
        (
            "metrics.csv",
            "val/",
            "the validation split (`metrics.csv` of the run), which may have selected the checkpoint",
        ),
    ):
        if run is not None and (run / name).is_file():
            with (run / name).open(newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
            found = {
                key: value for row in rows for key, value in row.items() if key and key.startswith(prefix) and value
            }
            if found:
                return found, source
    return {}, ""


def _code(tokens: Sequence[str], number: int = 8) -> str:
    return ", ".join(f"`{token}`" for token in tokens[:number]) + (
        f" and {len(tokens) - number} more" if len(tokens) > number else ""
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one not in ({}, []))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    quoted = isinstance(value, str) and (not value or value.isspace())
    return json.dumps(value, ensure_ascii=False) if quoted else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
