"""The model card of an exported folder (model_card.jinja): the model, how to prompt it, its data, method, figures and
limits. Reads files only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from coh_lightning.worlds import TABLE

OPTIMIZATION = ("lr", "betas", "weight_decay", "warmup_ratio", "min_lr_ratio")
"""Settings of the model in a run's config.yaml that the card shows."""


def model_card(
    name: str,
    saved: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    conditions: Mapping[tuple[str, str | None], Mapping[str, str]],
    spelled: Sequence[str],
    notes: Sequence[str],
    *,
    parameters: int,
    run: Path | None,
    adapter: bool,
) -> str:
    """The card, in Markdown with the YAML header that the hub reads.

    Args:
        name: Of the folder.
        saved: What the checkpoint says about its model.
        checkpoint: Its `global_step` and `epoch`, if any.
        conditions: Feedback sentences by name for each (task, aspect), the most common first.
        spelled: Added tokens that were spelled out in people's text, without the special ones.
        notes: What the user should know about its template, a sentence each.
        run: Run folder, for data and figures.
        adapter: Whether the folder has only adapters.
    """
    from jinja2 import Environment

    base = saved.get("base")
    header: dict[str, Any] = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": "text-generation"}
    if base and base not in TABLE and not Path(base).exists():  # a name on the hub
        header["base_model"] = base
    header["tags"] = ["chain-of-hindsight", "coh_lightning"]
    (first, sentences), *others = conditions.items()
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
        report=_read(run, "data.json", json.loads),
        facts=_facts(saved, checkpoint, run),
        figures=figures,
        held_out=held_out,
        spelled=spelled,
        notes=notes,
    )


def _task(task: str, aspect: str | None) -> str:
    return f"the task `{task}`" + (f", rated for `{aspect}`" if aspect else "")


def _read(run: Path | None, name: str, parse: Callable[[str], Any]) -> Any:
    """The content of a file of a run; None: there is no such file."""
    file = run / name if run is not None else None
    return parse(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else None


def _facts(saved: Mapping[str, Any], checkpoint: Mapping[str, Any], run: Path | None) -> dict[str, object]:
    settings = saved["data"]
    facts = {f"method: {name}": value for name, value in settings["method"].items() if name != "name"}
    facts["wording"] = settings["wording"]["name"]
    facts |= {f"prompt format: {name}": value for name, value in settings["prompt_format"].items()}
    facts |= {f"LoRA: {name}": value for name, value in (saved.get("lora") or {}).items() if value is not None}
    for key, name in (("global_step", "optimizer steps"), ("epoch", "epoch")):
        if key in checkpoint:
            facts[name] = checkpoint[key]
    model = (_read(run, "config.yaml", yaml.safe_load) or {}).get("model") or {}
    return facts | {name: model[name] for name in OPTIMIZATION if name in model}


def _figures(run: Path | None) -> tuple[dict[str, str], str]:
    """The last value of each held-out figure, and where it comes from."""
    selecting = "the validation split (`metrics.csv` of the run), which may have selected the checkpoint"
    for name, prefix, source in (
        ("test.csv", "test/", "the held-out test split (`test.csv` of the run)"),
        ("metrics.csv", "val/", selecting),
    ):
        if run is not None and (run / name).is_file():
            with (run / name).open(newline="", encoding="utf-8") as opened:
                cells = [cell for row in csv.DictReader(opened) for cell in row.items()]
            if found := {key: value for key, value in cells if key and key.startswith(prefix) and value}:
                return found, source
    return {}, ""


def _code(tokens: Sequence[str], number: int = 8) -> str:
    more = len(tokens) - number
    return ", ".join(f"`{token}`" for token in tokens[:number]) + (f" and {more} more" if more > 0 else "")


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items() if one not in ({}, []))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    quoted = isinstance(value, str) and (not value or value.isspace())
    return json.dumps(value, ensure_ascii=False) if quoted else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
