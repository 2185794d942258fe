"""Plain text for the pretraining loss: local files or a dataset on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from coh_lightning.errors import InputError
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.sources.base import text_column
from coh_lightning.feedback.sources.file_names import data_suffix
from coh_lightning.feedback.sources.files import Reading, SourceRows, hub_rows, read_rows
from coh_lightning.feedback.sources.folders import chosen_files, file_notes, is_local


def read_texts(path: str, notes: list[str] | None = None) -> list[str]:
    """The documents of local files (.txt: separated by blank lines; other kinds: the column "text") or of the train
    split of a dataset on the hub.

    Args:
        notes: gets what was read and what was passed over, if the path is more than one file.

    Raises:
        InputError: no such file or dataset, no column "text", or no text in it.
    """
    if is_local(path):
        chosen = chosen_files(path, plain_text=True)
        texts = [text for file in chosen.files for text in _of_file(file)]
        if notes is not None:
            notes += [f"{path}: {line}" for line in file_notes(chosen, path)]
    else:
        texts = _texts(hub_rows({"path": path}, split="train"))
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{path}: there is no text in it.")
    return texts


def _of_file(path: Path) -> list[str]:
    if data_suffix(path) == ".txt":
        return [part.strip() for part in re.split(r"\n\s*\n", read_text(path))]
    return _texts(read_rows(path, Reading(fits=lambda names: "text" in names)))


def _texts(rows: SourceRows) -> list[str]:
    texts = []
    for where, row in rows:
        if isinstance(row, InputError):
            raise row
        texts.append(text_column(row, "text", where))
    return texts
