"""Plain text for the pretraining loss: local files or a dataset on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.compressed import read_text
from coh_lightning.feedback.sources.base import text_column
from coh_lightning.feedback.sources.file_names import data_suffix
from coh_lightning.feedback.sources.files import Reading, read_rows
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
        import datasets

        try:
            table = datasets.load_dataset(path, split="train")
        except Exception as error:  # the hub's client raises many kinds of exceptions
            raise InputError(
                f"{path}: there is no such local file, and loading it from the hub failed "
                f"({type(error).__name__}: {first_line(error)}); give a local text file."
            ) from error
        texts = [text_column(dict(row), "text", f"{path}: row {number}") for number, row in enumerate(table, start=1)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise InputError(f"{path}: there is no text in it.")
    return texts


def _of_file(path: Path) -> list[str]:
    if data_suffix(path) not in (".txt",):
        rows = list(read_rows(path, Reading(fits=lambda names: "text" in names)))
        bad = next((row for _, row in rows if isinstance(row, InputError)), None)
        if bad is not None:
            raise bad
        return [text_column(row, "text", where) for where, row in rows if not isinstance(row, InputError)]
    return [part.strip() for part in re.split(r"\n\s*\n", read_text(path))]
