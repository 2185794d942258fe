"""A whole world as a folder of ordinary files, for comparisons over bases, shares of hasty writers, noise and sizes.

    FOLDER/
    ├── model/             the base model and its tokenizer, a Hugging Face folder      model.name_or_path
    ├── feedback.jsonl     the base model's summaries of training posts, rated          data.feedback
    ├── tune.jsonl         unseen posts with the gold summary, to choose settings by    data.validation_sources
    ├── test.jsonl         other unseen posts, to report                                data.test_sources
    ├── pretraining.txt    text by the same writers, to mix into fine-tuning            data.pretraining_text
    └── world.json         what all of it was made from

Posts of tune.jsonl and test.jsonl are the same in every world, so that worlds can be compared post by post; none is in
feedback.jsonl or in any pretraining text.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.io import atomic_write
from coh_lightning.world.feedback import BASES, TEST_SEED, TUNE_SEED, draw, file_sha256, world_prompts
from coh_lightning.world.pretraining import pretraining_text
from coh_lightning.world.raters import RATER_NOISE
from coh_lightning.world.writers import HASTY, WorldKind, writer_shares

VERSION = 2
"""Raise it with every change that changes the files of the same settings."""

DOCUMENTS = {"habits": 64_000, "noise": 96_000}
"""Pretraining documents of the packaged base models."""

TUNE_POSTS = 200
TEST_POSTS = 500
PRETRAINING_TEXTS = 4000

SHIPPED = "shipped"


@dataclass(frozen=True)
class WorldSettings:
    """Everything that decides the files of a world.

    Raises:
        InputError: a value that makes no world; naming the option of the command.
    """

    kind: WorldKind = "habits"
    hasty: float | None = None
    """The share of hasty writers; None: HASTY in the `habits` world, and there are none in the `noise` world."""
    seed: int = 0
    """Of documents, weights and order of the base model, and of posts, samples and ranks of the feedback."""
    documents: int | None = None
    """Pretraining documents of the base model, each seen once; None: DOCUMENTS of the kind."""
    records: int = 800
    """Records of feedback, one per post, each with four summaries."""
    wrong_words: float = 0.0
    """The share of critiques that have one fault exchanged for one that isn't true (`world.faults.exchanged`)."""
    base: str | None = None
    """None: a base model is made; `shipped`: that of the package (kind and seed 0 of it); else a folder to copy."""

    def __post_init__(self) -> None:
        writer_shares(self.kind, self.hasty)
        if not 0 <= self.wrong_words <= 1:
            raise InputError(f"--wrong-words is {self.wrong_words:g}; it is a share, so it must be from 0 to 1.")
        for name in ("documents", "records"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise InputError(f"--{name} is {count}; it must be at least 1.")
        if self.base is None:
            return
        if self.documents is not None:
            what = f"--documents is {self.documents}, but with --base {self.base} no base model is trained"
            raise InputError(f"{what}; leave one of them out.")
        if self.base == SHIPPED and self.hasty not in (None, HASTY):
            what = f"--hasty is {self.hasty:g}, but the packaged base model was trained with {HASTY:g}"
            raise InputError(f"{what}; leave out --base {SHIPPED}, and a base model is trained.")
        if not (self.base_folder / "model.safetensors").is_file():
            what = f"--base is {self.base}, which has no model.safetensors"
            raise InputError(f"{what}; give the folder `model` of a world, or {SHIPPED}.")

    @property
    def base_folder(self) -> Path:
        assert self.base is not None
        return BASES[self.kind] if self.base == SHIPPED else Path(self.base)

    def to_json(self) -> dict[str, object]:
        """The settings with their defaults filled in; of a base model that is copied, its checksum."""
        values = asdict(self) | {"version": VERSION, "rater_noise": RATER_NOISE}
        if self.kind == "habits" and self.hasty is None:
            values["hasty"] = HASTY
        if self.base is None:
            values["documents"] = self.documents or DOCUMENTS[self.kind]
        else:
            values["base"] = file_sha256(self.base_folder / "model.safetensors")
        return values


def make_world(folder: Path, settings: WorldSettings) -> bool:
    """Make a world in `folder`, which appears when it is whole; False if it was there already.

    Raises:
        InputError: the folder is a world of other settings, or something else.
    """
    wanted = settings.to_json()
    if folder.exists():
        _check_same(folder, wanted)
        return False
    with atomic_write(folder) as aside:
        aside.mkdir()
        if settings.base is None:
            from coh_lightning.world.base_model import make_base

            count, writers = settings.documents or DOCUMENTS[settings.kind], {"hasty": settings.hasty}
            texts = pretraining_text(count, seed=settings.seed, kind=settings.kind, **writers)
            make_base(aside / "model", texts, seed=settings.seed)
        else:
            (aside / "model").mkdir()
            for file in settings.base_folder.iterdir():
                if file.is_file():
                    shutil.copyfile(file, aside / "model" / file.name)
        texts = pretraining_text(PRETRAINING_TEXTS, seed=settings.seed, kind=settings.kind, hasty=settings.hasty)
        (aside / "pretraining.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8", newline="\n")
        records = draw(
            posts=settings.records,
            samples=4,
            seed=settings.seed,
            difficulty="middle",
            noise=RATER_NOISE,
            split="train",
            base=aside / "model",
            wrong_words=settings.wrong_words,
        )
        write_jsonl(aside / "feedback.jsonl", records)
        test = world_prompts(TEST_POSTS, seed=TEST_SEED)
        tested = {record.prompt for record in test}
        tune = [record for record in world_prompts(TUNE_POSTS, seed=TUNE_SEED) if record.prompt not in tested]
        write_jsonl(aside / "test.jsonl", test)
        write_jsonl(aside / "tune.jsonl", tune)
        (aside / "world.json").write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8", newline="\n")
    return True


def _check_same(folder: Path, wanted: dict[str, object]) -> None:
    note = folder / "world.json"
    if not note.is_file():
        raise InputError(f"{folder} exists and is not a world (it has no world.json); give another folder.")
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{note} is not JSON of a world; delete {folder}, or give another folder.")
    if found != wanted:
        keys = [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]
        differ = ", ".join(f"{key} {found.get(key)} (asked for: {wanted.get(key)})" for key in keys)
        raise InputError(f"{folder} is a world of other settings: {differ}; give another folder, or delete this one.")
