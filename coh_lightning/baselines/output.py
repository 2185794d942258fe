"""The folder of a baseline: settings.json while it is trained, trl.json once it is done.

unfinished    settings.json      what was asked for; a command with other settings is refused
              checkpoints/       TRL's
finished      model.safetensors, config.json, tokenizer.json, ...
              trl.json           settings, versions, losses by step, seconds, epochs, tokens
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.io import atomic_write

DONE = "trl.json"
STARTED = "settings.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """What a baseline is trained with. Raises InputError if `micro_batch` doesn't divide a step."""

    trainer: str
    """dpo, kto, reward or rloo."""
    folder: Path
    model: str
    steps: int
    batch: int
    """Per optimizer step: pairs (dpo, reward), completions (kto), prompts (rloo)."""
    lr: float
    seed: int
    beta: float | None = None
    """Weight of the divergence from the base model; None: reward models have none."""
    samples: int = 1
    """Completions of each prompt in RLOO."""
    max_new_tokens: int = 64
    reward: str | None = None
    """What RLOO maximizes: a folder of ours, or a scorer."""
    micro_batch: int | None = None
    """Rows in one forward pass; None: all of a step."""
    bf16: bool = False
    gradient_checkpointing: bool = False
    save_every: int = 100
    rows: Mapping[str, Any] = field(default_factory=dict)
    """Digests of the rows."""

    def __post_init__(self) -> None:
        if self.rows_per_step % self.rows_per_pass:
            raise InputError(
                f"--micro-batch is {self.rows_per_pass}, which doesn't divide the {self.rows_per_step} rows of a step; "
                "give a divisor."
            )

    @property
    def rows_per_step(self) -> int:
        return self.batch * self.samples

    @property
    def rows_per_pass(self) -> int:
        return min(self.micro_batch or self.rows_per_step, self.rows_per_step)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on; plain JSON."""
        left_out = ("folder", "save_every")
        found = {name: value for name, value in asdict(self).items() if name not in left_out}
        return json.loads(json.dumps(found))

    def is_done(self) -> bool:
        """Whether the folder has this run, finished.

        Raises:
            InputError: it has something else, or a run with other settings.
        """
        done, started = self.folder / DONE, self.folder / STARTED
        if not done.is_file() and not started.is_file():
            if self.folder.is_file() or (self.folder.is_dir() and any(self.folder.iterdir())):
                raise InputError(f"{self.folder} already exists and is no folder of `coh trl`; name a new --output.")
            return False
        file = done if done.is_file() else started
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            was = found["settings"] if file is done else found
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} can't be read; name a new --output, or delete {self.folder}.") from error
        for name, value in self.settings.items():
            if was.get(name) != value:
                what = f"{self.folder} was made with {name} {was.get(name)!r}, not {value!r}"
                raise InputError(f"{what}; name a new --output, or delete it.")
        return file is done

    def begin(self) -> None:
        """Writes what was asked for into the folder."""
        write_json(self.folder / STARTED, self.settings)


def write_json(path: Path, found: Mapping[str, Any]) -> None:
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
