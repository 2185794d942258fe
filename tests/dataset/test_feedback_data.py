"""Data are built without torch and Lightning, by the tokenizer that transformers would take, in memory that doesn't
grow with the number of records.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from coh_lightning import tables
from coh_lightning.data import CoHDataModule
from coh_lightning.dataset import feedback_data
from coh_lightning.dataset.feedback_data import FeedbackData, only_new_garbage
from coh_lightning.model import tokenizer as loading
from coh_lightning.sequences import encoder
from coh_lightning.worlds import resolve
from helpers.feedback import data_of, pairs, write
from helpers.tokenizers import CHATML, MAKERS

HEAVY = {"torch", "lightning", "datasets", "torchmetrics"}
ROOT = Path(__file__).parents[2]


def loaded_after(code: str) -> set[str]:
    show = "import sys; print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    return set(done.stdout.splitlines()[-1].split())


def test_building_data_imports_neither_torch_nor_lightning(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", pairs(6))
    build = f"""
from coh_lightning.dataset.feedback_data import FeedbackData
data = FeedbackData({file!r}, tokenizer="world", validation_share=0.2, cache_dir={str(tmp_path / "cache")!r})
data.build()
assert data.report() and data.summary() and data.rows.train_row(data.plan.step(0, 0)[0], 0).ids.any()"""
    assert not loaded_after(build) & HEAVY


@pytest.mark.parametrize("words", [["preview"], ["convert", "--to", "trl-pairs", "--output", "o.jsonl"]])
def test_commands_on_a_file_import_neither_torch_nor_lightning(words: list[str], tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", pairs(6))
    words = [words[0], file, *[word.replace("o.jsonl", str(tmp_path / "o.jsonl")) for word in words[1:]]]
    assert not loaded_after(f"from coh_lightning.__main__ import main\nmain({words!r})") & HEAVY


def test_the_data_module_has_the_arguments_of_the_data() -> None:
    assert issubclass(CoHDataModule, FeedbackData) and CoHDataModule.__init__ is FeedbackData.__init__


# The tokenizer


def same(one: Any, other: Any) -> None:
    assert type(one) is type(other) and one.get_vocab() == other.get_vocab()
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()
    assert one.special_tokens_map == other.special_tokens_map and one.chat_template == other.chat_template
    assert one.added_tokens_decoder == other.added_tokens_decoder and one.name_or_path == other.name_or_path
    for text in loading.PROBES:
        assert one(text)["input_ids"] == other(text)["input_ids"]


@pytest.mark.parametrize("name", ["world:habits", "world:noise"])
def test_the_tokenizers_of_the_worlds_are_those_of_transformers(name: str) -> None:
    folder = resolve("tokenizer", name)
    found = loading._without_torch(Path(folder))
    assert found is not None
    same(found, AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("model", [None, "llama", "gpt2"])
def test_a_saved_tokenizer_is_that_of_transformers(maker: str, model: str | None, tmp_path: Path) -> None:
    MAKERS[maker](CHATML).save_pretrained(tmp_path)
    if model is not None:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model}))
    found = loading._without_torch(tmp_path)
    assert found is not None
    same(found, AutoTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize(
    "change", [{"tokenizer_class": "LlamaTokenizer"}, {"auto_map": {}}, {"fix_mistral_regex": True}]
)
def test_a_tokenizer_with_code_of_its_own_is_left_to_transformers(change: dict[str, Any], tmp_path: Path) -> None:
    MAKERS["byte_level"]().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert loading._without_torch(tmp_path) is None


def test_so_is_that_of_a_model_with_its_own_class_and_a_name_on_the_hub(tmp_path: Path) -> None:
    MAKERS["byte_level"]().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mistral"}')
    assert loading._without_torch(tmp_path) is None and loading._without_torch(Path("gpt2")) is None


# Memory


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 64 bytes a record are allocated at once, beyond buffers of a fixed size (here small ones)."""
    monkeypatch.setattr(tables, "_BUFFERED", 1 << 10)
    monkeypatch.setattr(encoder, "_REMEMBERED", 64)
    peaks = []
    for number in (400, 1600):
        folder = tmp_path / str(number)
        folder.mkdir()
        data_of(pairs(number), folder).build()  # the cache of ids
        data = data_of(pairs(number), folder)
        gc.collect()
        tracemalloc.start()
        data.build()
        assert data.plan.step(0, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1200 < 64


def test_old_objects_are_collected_again_afterwards() -> None:
    before = gc.get_freeze_count()
    with only_new_garbage():
        assert gc.get_freeze_count() > before
        with only_new_garbage():
            pass
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == before


def test_rows_are_the_same_for_a_data_module_that_was_sent_to_another_process(tmp_path: Path) -> None:
    import pickle

    data = data_of(pairs(12), tmp_path)
    data.build()
    other = pickle.loads(pickle.dumps(data.rows))
    row = data.plan.step(1, 0)[0]
    assert np.array_equal(other.train_row(row, 1).ids, data.rows.train_row(row, 1).ids)


def test_a_world_is_data_like_any_other(tmp_path: Path) -> None:
    assert feedback_data.WORLD == "world" and FeedbackData("world", cache_dir=str(tmp_path)).own_feedback is None
