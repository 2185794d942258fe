"""The tokenizer is the model's own or equal to it: no model is trained on another's ids."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from coh_lightning.__main__ import main
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import export_checkpoint
from coh_lightning.generation.settings import Generation
from coh_lightning.model.checkpoints import read_checkpoint_info
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.model.tokenizer import choose_tokenizer, first_difference, load_tokenizer
from coh_lightning.module import CoHModule
from coh_lightning.world.feedback import HABITS_BASE, load_base
from helpers.feedback import TINY, data_of, pairs, tiny, write
from helpers.tokenizers import CHATML, byte_level, character, sentencepiece
from helpers.training import trainer

ROWS = 700
"""Of the embedding: more than the tokenizer has tokens, as in many models."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretrained model with its tokenizer in a folder."""
    folder = tmp_path_factory.mktemp("model")
    ModelSpec(from_config=TINY | {"vocab_size": ROWS}).build().save_pretrained(folder)
    byte_level(CHATML).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models that have only weights in their folders, for which transformers makes an empty tokenizer, or none."""
    found = {}
    for kind in ("qwen2", "llama"):
        folder = tmp_path_factory.mktemp(f"bare-{kind}")
        ModelSpec(from_config=TINY | {"model_type": kind, "vocab_size": ROWS}).build().save_pretrained(folder)
        found[kind] = str(folder)
    return found


def saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(folder)
    return str(folder)


def run_in(folder: Path, **more: Any) -> pl.Trainer:
    return trainer(folder, **({"max_steps": 1} | more))


def own_data(folder: Path, **more: Any) -> CoHDataModule:
    return data_of(pairs(8), folder, **({"tokenizer": None, "train_only": False, "test_share": 0.3} | more))


# The model's, unless one is named


def test_the_tokenizer_is_the_models_in_training_in_tests_and_in_what_is_exported(model: str, tmp_path: Path) -> None:
    data, module, run = own_data(tmp_path), CoHModule(model), run_in(tmp_path)
    run.fit(module, datamodule=data)
    assert data.tokenizer.get_vocab() == byte_level().get_vocab() and data.tokenizer_name == model
    assert json.loads((tmp_path / "data.json").read_text())["tokenizer"] == model
    run.save_checkpoint(tmp_path / "one.ckpt")
    assert read_checkpoint_info(tmp_path / "one.ckpt")["tokenizer"] == model
    export_checkpoint(tmp_path / "one.ckpt", tmp_path / "out")
    assert first_difference(byte_level(), AutoTokenizer.from_pretrained(tmp_path / "out")) is None
    for loaded in (CoHModule.load_from_checkpoint(tmp_path / "one.ckpt"), CoHModule(str(tmp_path / "one.ckpt"))):
        again = own_data(tmp_path)
        run_in(tmp_path).test(loaded, datamodule=again, verbose=False)
        assert again.tokenizer_name == model and again.settings()["tokenizer"] == data.settings()["tokenizer"]


def test_the_command_line_takes_the_models_tokenizer_everywhere(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feedback = write(tmp_path / "f.jsonl", pairs(20))
    sizes = [
        "--data.max_prompt_tokens=128",
        "--data.max_chain_tokens=256",
        "--data.row_tokens=256",
        f"--data.cache_dir={tmp_path / 'cache'}",
    ]
    common = [
        f"--data.feedback={feedback}",
        f"--model.name_or_path={model}",
        *sizes,
        "--data.test_share=0.3",
        "--trainer.accelerator=cpu",
    ]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.max_steps=1"]
    assert main(["fit", *common, *quiet, f"--run.folder={tmp_path / 'run'}"]) == 0
    assert json.loads((tmp_path / "run" / "data.json").read_text())["tokenizer"] == model
    prompts = tmp_path / "prompts.jsonl"
    ids = [
        "--model.generation.sampling.max_new_tokens=4",
        f"--model.generation.prompts_to={prompts}",
        f"--run.folder={tmp_path / 'predict'}",
    ]
    assert main(["predict", *common, "--trainer.enable_progress_bar=false", *ids]) == 0
    tokenizer, lines = byte_level(), [json.loads(line) for line in prompts.read_text().splitlines()]
    assert lines and all(tokenizer.decode(line["prompt_ids"]).endswith("answer:\n") for line in lines)
    capsys.readouterr()
    assert main(["preview", *common[:2], *sizes, "--num=0", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows and all(tokenizer.decode(row["ids"][-1:]) == "</s>" for row in rows)


def test_without_a_model_a_preview_names_its_tokenizer(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feedback = write(tmp_path / "f.jsonl", pairs(4))
    cache = f"--data.cache_dir={tmp_path}"
    note = "no model is named, so the tokens are those of the embedded world's tokenizer"
    for words, shown in (
        ([], True),
        (["--model.name_or_path=world"], False),
        ([f"--model.name_or_path={model}"], False),
        (["--data.tokenizer=world"], False),
    ):
        assert main(["preview", feedback, cache, "--num=1", *words]) == 0
        assert (note in " ".join(capsys.readouterr().out.split())) == shown, words


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_own_feedback_without_a_model_is_refused_before_anything_is_written(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "f.jsonl", pairs(4))
    trainer = ["--trainer.accelerator=cpu", *(["--trainer.max_steps=1"] if command == "fit" else [])]
    sources = "--data.sources=[{class_path: Records, init_args: {path: f.jsonl}}]"
    for words, feedback in (
        (["--data.feedback=f.jsonl"], "'f.jsonl'"),
        ([sources], "Records 'f'"),
        (["--data.feedback=f.jsonl", "--data.tokenizer=world"], "'f.jsonl'"),
    ):
        assert main([command, *words, *trainer]) == 2
        said = capsys.readouterr().err
        assert f"model.name_or_path is not set and the feedback is {feedback}" in said
        assert "model.name_or_path=NAME or FOLDER" in said and "model.name_or_path=world" in said
        assert [path.name for path in tmp_path.iterdir()] == ["f.jsonl"]


def test_a_predict_that_runs_no_model_needs_only_the_tokenizer(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = own_data(tmp_path, tokenizer=model)
    run_in(tmp_path).predict(CoHModule(generation=Generation(prompts_to=str(tmp_path / "p.jsonl"))), datamodule=data)
    assert (tmp_path / "p.jsonl").read_text()
    with pytest.raises(InputError, match=r"data.tokenizer is not set, and there is no model to take it from"):
        run_in(tmp_path).predict(
            CoHModule(generation=Generation(prompts_to=str(tmp_path / "q.jsonl"))), datamodule=own_data(tmp_path)
        )


def test_python_has_the_same_rules(tmp_path: Path) -> None:
    for name, module, message in (
        (None, CoHModule(), r"model.name_or_path is not set and the feedback is '.*feedback.jsonl'"),
        ("world", CoHModule(), r"model.name_or_path is not set and the feedback is '.*feedback.jsonl'"),
        (
            None,
            tiny(),
            r"data.tokenizer is not set, and a model made by model.from_config has none; give a name",
        ),
    ):
        with pytest.raises(InputError, match=message):
            run_in(tmp_path / "run").fit(module, datamodule=own_data(tmp_path, tokenizer=name))
    with pytest.raises(InputError, match=r"data.tokenizer is not set, and there is no model to take it from"):
        own_data(tmp_path).setup()
    assert not (tmp_path / "run").exists()
    data = own_data(tmp_path)
    run_in(tmp_path).fit(CoHModule("world"), datamodule=data)
    assert data.tokenizer_name == "world" and data.tokenizer.get_vocab() == load_base()[1].get_vocab()


def test_the_worlds_own_feedback_needs_no_names(tmp_path: Path) -> None:
    for spec in (None, ModelSpec(), ModelSpec("world"), ModelSpec(from_config=TINY)):
        own = CoHDataModule("world", cache_dir=str(tmp_path)).own_feedback
        assert choose_tokenizer(None, spec, own).name == "world"


def test_a_file_or_folder_called_world_is_given_as_dot_slash_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world").write_text("no checkpoint")
    assert (
        ModelSpec("world").checkpoint is None
        and ModelSpec("world").config().vocab_size == ModelSpec(str(HABITS_BASE)).config().vocab_size
    )
    assert CoHDataModule("world").own_feedback is None and CoHDataModule("./world").own_feedback == "'./world'"
    (tmp_path / "world").unlink()
    saved(character(), tmp_path / "world")
    assert first_difference(character(), load_tokenizer("./world")) is None
    assert first_difference(character(), load_tokenizer("world")) is not None


# One that is named


def test_a_named_tokenizer_with_the_same_ids_is_accepted_whatever_its_template(model: str, tmp_path: Path) -> None:
    name = saved(byte_level(), tmp_path / "same")
    choice = choose_tokenizer(name, ModelSpec(model), "f")
    assert choice.name == name and choice.note is None and choice.tokenizer.chat_template is None


def test_another_tokenizer_is_refused_by_the_first_token_that_differs(model: str, tmp_path: Path) -> None:
    token = byte_level().convert_ids_to_tokens(300)
    swapped = json.loads(byte_level().backend_tokenizer.to_str())
    swapped["model"]["vocab"][token], swapped["model"]["vocab"][byte_level().convert_ids_to_tokens(301)] = 301, 300
    more = byte_level()
    more.backend_tokenizer.add_tokens([AddedToken("<pad>", special=True)])
    for tokenizer, message in (
        (
            PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(swapped))),
            rf"the token {token!r} has id 300 in the model's and has id 301 in this",
        ),
        (
            more,
            rf"the token '<pad>' is not in the model's and has id {len(byte_level())} in this one \(1 tokens differ\)",
        ),
        (character(), r"the token .* has id 0 in the model's"),
        (load_tokenizer("world"), r"the token .* in the model's"),
    ):
        name = saved(tokenizer, tmp_path / "other")
        with pytest.raises(
            InputError, match=rf"data.tokenizer is '{name}', which is not that of the model '{model}': "
        ) as refused:
            choose_tokenizer(name, ModelSpec(model), "f")
        assert re.search(message, str(refused.value))


@pytest.mark.parametrize(
    "changed", [{"normalizer": {"type": "Lowercase"}}, {"pre_tokenizer": None}, {"post_processor": None}]
)
def test_the_same_vocabulary_with_another_normalizer_or_processor_is_refused(changed: dict[str, Any]) -> None:
    own = byte_level(bos=True)
    state = json.loads(own.backend_tokenizer.to_str())
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state | changed)))
    assert own.get_vocab() == other.get_vocab()
    assert (first_difference(own, other) or "").startswith("the text ")


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=2, max_size=12, unique=True)


def words(vocabulary: dict[str, int], added: list[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([AddedToken(text, special=True) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@settings(max_examples=60, deadline=None)
@given(
    tokens=WORDS,
    order=st.randoms(use_true_random=False),
    added=st.lists(st.sampled_from(["<p>", "<q>", "<r>"]), unique=True),
)
def test_whatever_differs_is_found_and_the_first_token_named(tokens: list[str], order: Any, added: list[str]) -> None:
    other = list(tokens)
    if order.random() < 0.7:
        order.shuffle(other)
    more = list(added)
    order.shuffle(more)
    ours = words({text: number for number, text in enumerate(tokens)}, added)
    theirs = words({text: number for number, text in enumerate(other)}, more)
    one, two = [*tokens, *added], [*other, *more]
    first = next((a for a, b in zip(one, two, strict=True) if a != b), None)
    found = first_difference(ours, theirs)
    if first is None:
        assert found is None
    else:
        place = one.index(first)
        assert found is not None and any(f"the token {text!r} has id" in found for text in (first, two[place]))


# Weights without a tokenizer


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_weights_without_a_tokenizer_need_a_named_one_and_give_a_warning(
    kind: str, bare: dict[str, str], model: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"{bare[kind]}"):
        choose_tokenizer(None, ModelSpec(bare[kind]), "f")
    data = own_data(tmp_path, tokenizer=model)
    with pytest.warns(UserWarning, match=rf"the model '{bare[kind]}' has no tokenizer to compare it with"):
        run_in(tmp_path).fit(CoHModule(bare[kind]), datamodule=data)
    assert any(
        "no tokenizer to compare it with" in note for note in json.loads((tmp_path / "data.json").read_text())["notes"]
    )


def test_a_folder_of_weights_is_not_a_tokenizer(bare: dict[str, str]) -> None:
    with pytest.raises(
        InputError, match=r"There is no tokenizer in the folder .* \(no vocabulary\); name one with data.tokenizer"
    ):
        load_tokenizer(bare["qwen2"])
    with pytest.raises(InputError, match="can't be loaded"):
        load_tokenizer(bare["llama"])


def test_a_damaged_tokenizer_is_refused_in_one_sentence(tmp_path: Path) -> None:
    name = saved(byte_level(), tmp_path)
    file = tmp_path / "tokenizer.json"
    whole = file.read_bytes()
    for text in (whole[:1000], b"{}", b"\xff\xfe", b""):
        file.write_bytes(text)
        with pytest.raises(InputError, match=r"The tokenizer '.*' can't be"):
            load_tokenizer(name)


def test_ids_beyond_the_embedding_are_refused_and_more_rows_than_tokens_are_not(
    bare: dict[str, str], tmp_path: Path
) -> None:
    tokenizer = byte_level()
    last = max(tokenizer.get_vocab().values())
    name = saved(tokenizer, tmp_path / "tokenizer")
    for rows, fits in ((last + 1, True), (ROWS, True), (last, False)):
        module, data = tiny(vocab_size=rows), own_data(tmp_path, tokenizer=name)
        if fits:
            run_in(tmp_path).fit(module, datamodule=data)
        else:
            with pytest.raises(
                InputError,
                match=rf"has ids up to {last}, but the model's embedding ends at {last - 1}",
            ):
                run_in(tmp_path).fit(module, datamodule=data)


def test_the_largest_id_is_found_where_ids_have_gaps(tmp_path: Path) -> None:
    name = saved(words({"Question": 0, "a": 7, "b": 1000}, ["</s>"]), tmp_path / "gaps")
    loaded = CoHDataModule("world", tokenizer=name)
    loaded.tokenizer = load_tokenizer(name)
    assert loaded.largest_id == max(loaded.tokenizer.get_vocab().values()) >= 1000


# A checkpoint of ours


def test_a_checkpoint_has_the_tokenizer_that_it_was_trained_with_and_takes_no_other(model: str, tmp_path: Path) -> None:
    own = saved(byte_level(), tmp_path / "own")
    run = run_in(tmp_path)
    run.fit(CoHModule(model), datamodule=own_data(tmp_path, tokenizer=own))
    path = str(tmp_path / "one.ckpt")
    run.save_checkpoint(path)
    assert choose_tokenizer(None, ModelSpec(path), "f").name == own
    assert choose_tokenizer(model, ModelSpec(path), "f").name == model
    other = saved(sentencepiece(), tmp_path / "other")
    with pytest.raises(
        InputError,
        match=rf"The tokenizer '{other}' is not the one that {path} was trained with: the token .*it was '{own}'",
    ):
        run_in(tmp_path).fit(CoHModule(path), datamodule=own_data(tmp_path, tokenizer=other))
    saved(sentencepiece(), tmp_path / "own")  # something else stands there now
    with pytest.raises(
        InputError,
        match=rf"The tokenizer '{own}' is not the one that {path} was trained with",
    ):
        choose_tokenizer(None, ModelSpec(path), "f")
    assert choose_tokenizer(model, ModelSpec(path), "f").name == model


# A data module that is used twice


def test_a_prepared_data_module_is_compared_with_each_new_model(model: str, tmp_path: Path) -> None:
    data = own_data(tmp_path, tokenizer=model)
    data.setup()
    before = data.splits
    run_in(tmp_path).fit(CoHModule(model), datamodule=data)
    assert data.splits is before
    with pytest.raises(InputError, match=r"which is not that of the model 'world'"):
        run_in(tmp_path).fit(CoHModule("world"), datamodule=data)


def test_the_card_of_a_model_that_began_as_the_worlds_names_no_model_of_the_hub(tmp_path: Path) -> None:
    run = run_in(tmp_path)
    run.fit(CoHModule("world", lora=LoRA(rank=2)), datamodule=own_data(tmp_path))
    run.save_checkpoint(tmp_path / "one.ckpt")
    assert read_checkpoint_info(tmp_path / "one.ckpt")["base"] == "world"
    for adapter in (False, True):
        export_checkpoint(tmp_path / "one.ckpt", tmp_path / f"out-{adapter}", adapter=adapter)
        card = (tmp_path / f"out-{adapter}" / "README.md").read_text(encoding="utf-8")
        assert "base_model:" not in card and "that started from `world`" in card
