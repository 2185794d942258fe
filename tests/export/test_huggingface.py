"""Exported folders: exactly the checkpoint's logits, prompts as in training, and the end of outputs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline

from coh_lightning.__main__ import main
from coh_lightning.callbacks import HuggingFaceExport
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import export_checkpoint
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.guidance import with_other_prompt
from coh_lightning.generation.sampling import Sampling
from coh_lightning.model.checkpoints import read_checkpoint
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.module import CoHModule
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.feedback import TINY, data_of, method, pairs, wording
from helpers.tokenizers import CHATML, byte_level
from helpers.training import trainer

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 520,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.2,
}
"""Its head is tied to its embedding, and its linear layers are transposed."""
CONFIGS = {"llama": TINY, "gpt2": GPT2, "tied": TINY | {"tie_word_embeddings": True}}
GOOD, BAD = "A helpful answer:", "An unhelpful answer:"


def trained(
    folder: Path, model: CoHModule, *, callbacks: Sequence[pl.Callback] = (), **settings: Any
) -> tuple[Path, CoHModule, CoHDataModule]:
    """A checkpoint after two steps, its module and its data."""
    folder.mkdir(exist_ok=True)
    data = data_of(pairs(24), folder, **settings)
    pl.seed_everything(0, verbose=False)
    run = trainer(folder, *callbacks, max_steps=2)
    run.fit(model, datamodule=data)
    run.save_checkpoint(folder / "two.ckpt")
    return folder / "two.ckpt", model, data


def sharded(path: Path, folder: Path, *, key: str = "state_dict") -> Path:
    """The same checkpoint as a folder of shards, as Lightning's strategies write it: `state_dict` is the key of FSDP2,
    `model` that of FSDP1.
    """
    checkpoint = torch.load(path, weights_only=True)
    dcp.save(
        {key: checkpoint.pop("state_dict"), "optimizer_0": checkpoint.pop("optimizer_states")[0]},
        checkpoint_id=folder,
        no_dist=True,
    )
    torch.save(checkpoint, folder / "meta.pt")
    return folder


def logits(lm: Any) -> Tensor:
    with torch.no_grad():
        return lm.eval()(input_ids=torch.arange(3, 60)[None]).logits


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoHModule, CoHDataModule]:
    return trained(tmp_path_factory.mktemp("plain"), CoHModule(from_config=TINY, lr=1e-2))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretrained model in a folder."""
    folder = tmp_path_factory.mktemp("base")
    ModelSpec(from_config=TINY).build().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapted(base: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoHModule, CoHDataModule]:
    return trained(tmp_path_factory.mktemp("adapted"), CoHModule(base, lr=1e-2, lora=LoRA(rank=4)))


# Weights


@pytest.mark.parametrize("config", CONFIGS)
def test_the_folder_gives_the_logits_of_the_checkpoint_to_the_last_bit(config: str, tmp_path: Path) -> None:
    path, model, _ = trained(tmp_path / "run", CoHModule(from_config=CONFIGS[config], lr=1e-2))
    export_checkpoint(path, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(model.lm))
    assert not list(tmp_path.glob(".*")), "nothing is left aside"


def test_weights_keep_their_type(tmp_path: Path) -> None:
    path = trained(tmp_path / "run", CoHModule(from_config=TINY, lr=1e-2))[0]
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"] = {key: value.bfloat16() for key, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint, tmp_path / "half.ckpt")
    export_checkpoint(tmp_path / "half.ckpt", tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16 and torch.equal(
        logits(loaded), logits(ModelSpec(str(tmp_path / "half.ckpt"), dtype=torch.bfloat16).build())
    )


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_folder_of_shards_gives_the_same_folder_as_a_file(
    key: str, plain: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    path = plain[0]
    export_checkpoint(path, tmp_path / "file" / "out")
    export_checkpoint(sharded(path, tmp_path / "shards.ckpt", key=key), tmp_path / "shards" / "out")
    for file in (tmp_path / "file" / "out").iterdir():
        assert file.read_bytes() == (tmp_path / "shards" / "out" / file.name).read_bytes(), file.name


def test_adapters_are_merged_and_the_folder_gives_the_merged_models_logits_to_the_last_bit(
    adapted: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    path = adapted[0]
    export_checkpoint(path, tmp_path / "out")
    loaded = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    with_adapters = ModelSpec(str(path)).build()
    torch.testing.assert_close(loaded, logits(with_adapters), rtol=0, atol=1e-5)
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in with_adapters.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
    assert torch.equal(loaded, logits(with_adapters))
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_adapters_alone_are_loaded_by_peft(
    adapted: tuple[Path, CoHModule, CoHDataModule], base: str, tmp_path: Path
) -> None:
    path, model, _ = adapted
    export_checkpoint(path, tmp_path / "out", adapter=True)
    assert not list((tmp_path / "out").glob("model*.safetensors"))
    wanted = logits(model.lm)
    assert not torch.equal(wanted, logits(AutoModelForCausalLM.from_pretrained(base)))
    for loaded in (
        AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out"),
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "out"),
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
    ):
        torch.testing.assert_close(logits(loaded), wanted, rtol=0, atol=1e-5)


def test_adapters_of_a_model_that_nobody_else_has_are_only_exported_merged(
    plain: tuple[Path, CoHModule, CoHDataModule], base: str, tmp_path: Path
) -> None:
    random = trained(tmp_path / "random", CoHModule(from_config=TINY, lora=LoRA(rank=2)))[0]
    first = trained(tmp_path / "first", CoHModule(base, lr=1e-2))[0]
    second = trained(tmp_path / "second", CoHModule(str(first), lora=LoRA(rank=2)))[0]
    for path, message in (
        (random, "the adapters belong to a model with random weights"),
        (second, "the adapters were trained on other weights than those of"),
        (plain[0], "the model has no adapters"),
    ):
        with pytest.raises(InputError, match=message):
            export_checkpoint(path, tmp_path / "out", adapter=True)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    export_checkpoint(second, tmp_path / "out")
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")),
        logits(ModelSpec(str(second)).build()),
        rtol=0,
        atol=1e-5,
    )


# Asking


def prompts(data: CoHDataModule, marker: str) -> list[list[int]]:
    return [data.prompter.tokens.inference_prompt(one.prompt, marker).tolist() for one in data.splits["train"]]


def messages(data: CoHDataModule) -> list[list[dict[str, str]]]:
    return [[{"role": turn.role, "content": turn.text} for turn in one.record.prompt] for one in data.splits["train"]]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CoHModule, CoHDataModule]:
    folder = tmp_path_factory.mktemp("chat")
    byte_level(CHATML).save_pretrained(folder / "tokenizer")
    settings: dict[str, Any] = {"tokenizer": str(folder / "tokenizer"), "prompt_format": PromptFormat("chat")}
    return trained(folder / "run", CoHModule(from_config=TINY | {"vocab_size": 600}, lr=1e-2), **settings)


@pytest.mark.parametrize("of", ["plain", "chat"])
def test_the_folders_tokenizer_gives_the_ids_of_training(
    of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, _, data = request.getfixturevalue(of)
    export_checkpoint(path, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    given: dict[str, Any] = {"add_generation_prompt": True, "return_dict": False}
    assert [tokenizer.apply_chat_template(one, **given) for one in messages(data)] == prompts(data, GOOD)
    assert [tokenizer.apply_chat_template(one, **given, feedback="bad") for one in messages(data)] == prompts(data, BAD)
    assert [
        tokenizer.apply_chat_template(one, **given, feedback_sentence="So so:") for one in messages(data)
    ] == prompts(data, "So so:")


@pytest.mark.parametrize("of", ["plain", "chat"])
def test_a_pipeline_answers_under_the_good_sentence_and_stops_where_outputs_ended(
    of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, model, data = request.getfixturevalue(of)
    export_checkpoint(path, tmp_path / "out")
    stops = list(data.prompter.stop_ids)
    generation = GenerationConfig.from_pretrained(tmp_path / "out")
    assert (
        generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
    ) == stops and generation.use_cache is True
    assert json.loads((tmp_path / "out" / "config.json").read_text())["use_cache"] is True
    ask = pipeline("text-generation", model=str(tmp_path / "out"))
    answer = ask(messages(data)[0], max_new_tokens=5, do_sample=False, return_full_text=False)[0]["generated_text"]
    ids = torch.tensor([prompts(data, GOOD)[0]])
    written = model.lm.eval().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, eos_token_id=stops, pad_token_id=0, use_cache=True
    )
    assert answer == data.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("of", ["plain", "chat"])
def test_transformers_own_guidance_writes_the_same_greedy_tokens(
    of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, model, data = request.getfixturevalue(of)
    export_checkpoint(path, tmp_path / "out")
    lm, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    asked: dict[str, Any] = {"add_generation_prompt": True, "return_dict": False, "return_tensors": "pt"}
    theirs: dict[float, list[list[int]]] = {0.0: [], 1.0: [], 2.5: []}
    for w, texts in theirs.items():
        for one in messages(data)[:6]:
            good = tokenizer.apply_chat_template(one, **asked)
            bad = tokenizer.apply_chat_template(one, **asked, feedback="bad")
            written = lm.generate(
                good, negative_prompt_ids=bad, guidance_scale=1 + w, do_sample=False, max_new_tokens=12
            )
            texts.append(
                [token for token in written[0, good.shape[1] :].tolist() if token not in data.prompter.stop_ids]
            )
    requests = [data.prompter.request(one.record, "good", GOOD) for one in data.splits["train"][:6]]
    for w, texts in theirs.items():
        sampling = Sampling(max_new_tokens=12, guidance=w, guidance_cutoff=0.0)
        ours = generate(
            model.lm,
            [with_other_prompt(data.prompter, one, "bad") for one in requests],
            sampling,
            stop_ids=data.prompter.stop_ids,
            pad_id=data.prompter.pad_id,
        )
        assert [one.ids.tolist() for one in ours] == texts
    assert theirs[0.0] != theirs[1.0] != theirs[2.5]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "model.generate(good, negative_prompt_ids=bad, guidance_scale=2.0)" in card


@pytest.mark.parametrize("of", ["plain", "chat"])
def test_a_pipeline_takes_contents_in_parts_for_their_texts(
    of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path, _, data = request.getfixturevalue(of)
    export_checkpoint(path, tmp_path / "out")
    ask = pipeline("text-generation", model=str(tmp_path / "out"))
    [texts] = [one for one in messages(data)[:1]]
    parts = [
        {**one, "content": [{"type": "text", "text": one["content"][:3]}, {"type": "text", "text": one["content"][3:]}]}
        for one in texts
    ]
    kwargs: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "return_full_text": False}
    assert ask(parts, **kwargs) == ask(texts, **kwargs)


def test_the_folders_tokenizer_can_spell_out_the_tokens_that_training_did(tmp_path: Path) -> None:
    tokenizer = byte_level(CHATML)
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("<tool_call>")])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    format = PromptFormat("chat", kept_tokens=("<think>",))
    path, _, data = trained(
        tmp_path / "run",
        CoHModule(from_config=TINY | {"vocab_size": 600}, lr=1e-2),
        tokenizer=str(tmp_path / "tokenizer"),
        prompt_format=format,
    )
    export_checkpoint(path, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "special tokens in people's text (and `<tool_call>`) were spelled out" in card
        and "In training, `<think>` in people's text were tokens" in card
    )
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    if not hasattr(loaded, "chat_control_tokens"):
        pytest.skip("this transformers can't spell them out")
    text = "<think> or </s> <tool_call> <|im_end|>?"
    asked = loaded.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
    )
    tokens = data.prompter.tokens
    assert asked == tokens.inference_prompt(tokens.cut_prompt((Turn("user", (Part(text),)),)), GOOD).tolist()


def test_a_chat_template_that_was_changed_after_training_is_refused(
    chat: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    tokenizer = byte_level(CHATML.replace("assistant", "model"))
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(
        InputError,
        match=r"The chat template of the tokenizer '.*' is not the one that the checkpoint was trained with",
    ):
        export_checkpoint(chat[0], tmp_path / "out", tokenizer=str(tmp_path / "tokenizer"))
    assert not (tmp_path / "out").exists()


def test_the_sentences_are_those_of_the_most_common_task(tmp_path: Path) -> None:
    rows = [
        {**row, "task": "summary" if index % 3 else "response", "aspect": None if index % 3 else "harmless"}
        for index, row in enumerate(pairs(24))
    ]
    data = data_of(rows, tmp_path, wording=wording("varied"))
    data.setup()
    assert data.settings()["tasks"] == [["summary", None], ["response", "harmless"]]
    asks = data.prompter.conditions_by_task()
    for one in data.splits["train"]:
        assert asks[one.record.task, one.record.aspect] == data.prompter.conditions(one.record)


def test_a_model_trained_without_sentences_is_prompted_without(tmp_path: Path) -> None:
    path, _, data = trained(tmp_path / "run", CoHModule(from_config=TINY), method=method("sft"))
    export_checkpoint(path, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer.apply_chat_template(messages(data)[0], add_generation_prompt=True, return_dict=False)
        == prompts(data, "")[0]
    )
    assert "It was trained without feedback sentences" in (tmp_path / "out" / "README.md").read_text()


def test_an_exported_model_is_trained_on_and_exported_again(
    chat: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    export_checkpoint(chat[0], tmp_path / "first")
    settings: dict[str, Any] = {
        "tokenizer": str(tmp_path / "first"),
        "prompt_format": PromptFormat("chat"),
        "wording": wording("binary"),
    }
    path, _, data = trained(tmp_path / "run", CoHModule(str(tmp_path / "first")), **settings)
    export_checkpoint(path, tmp_path / "second")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "second")
    marker = data.prompter.conditions(data.splits["train"][0].record)["good"]
    asked = [
        tokenizer.apply_chat_template(one, add_generation_prompt=True, return_dict=False) for one in messages(data)
    ]
    assert asked == prompts(data, marker) and GOOD not in tokenizer.decode(asked[0])


# During training


def test_the_callback_writes_at_each_validation_and_at_the_end_what_export_makes_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    data = data_of(pairs(24), tmp_path, train_only=False, validation_share=0.2, test_share=0.0)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
    }
    shape: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_steps": 3,
        "use_distributed_sampler": False,
        "default_root_dir": str(tmp_path),
    }
    saved = pl.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, save_top_k=-1, filename="{step}")
    run = pl.Trainer(
        **quiet,
        **shape,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        callbacks=[HuggingFaceExport(every_validation=True), saved],
    )
    run.fit(CoHModule(from_config=TINY, lr=1e-2), datamodule=data)
    steps = sorted(path.name for path in (tmp_path / "huggingface").iterdir())
    assert run.accumulate_grad_batches == 2 and steps == ["step=2", "step=3"]
    for step in steps:
        export_checkpoint(tmp_path / "saved" / f"{step}.ckpt", tmp_path / "again" / step)
        written, again = (
            (folder / step / "model.safetensors").read_bytes()
            for folder in (tmp_path / "huggingface", tmp_path / "again")
        )
        assert written == again
        for name in ("config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
            assert (tmp_path / "huggingface" / step / name).read_bytes() == (
                tmp_path / "again" / step / name
            ).read_bytes()


@pytest.mark.parametrize("adapter", [False, True])
def test_the_callback_writes_adapters_merged_or_alone(adapter: bool, base: str, tmp_path: Path) -> None:
    model = CoHModule(base, lr=1e-2, lora=LoRA(rank=4))
    trained(tmp_path, model, callbacks=[HuggingFaceExport(adapter=adapter)])
    folder = tmp_path / "huggingface" / "step=2"
    assert (folder / "adapter_config.json").exists() == adapter
    torch.testing.assert_close(
        logits(AutoModelForCausalLM.from_pretrained(folder)), logits(model.lm), rtol=0, atol=1e-5
    )


# The card


def test_the_card_says_data_method_figures_and_limits(
    plain: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(plain[0], run / "checkpoints" / "last.ckpt")
    plain[2].write_report(run)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"lr": 0.01}}))
    (run / "metrics.csv").write_text("step,val/nll,train/nll\n1,2.5,9\n2,,8\n3,2.25,\n")
    export_checkpoint(run / "checkpoints" / "last.ckpt", tmp_path / "first")
    card = (tmp_path / "first" / "README.md").read_text(encoding="utf-8")
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(head) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["chain-of-hindsight", "coh_lightning"],
    }
    for part in (
        "# first\n",
        "architecture llama with 0.1 M parameters that started from random weights",
        f"| `good` | {GOOD} |\n| `bad` | {BAD} |",
        "| train | 24 | 24 | 96 |",
        "| method: orders | p, n, pn, np |",
        "| lr | 0.01 |",
        "| optimizer steps | 2 |",
        "On the validation split",
        "| val/nll | 2.25 |",
        "prompts were cut to 128 tokens; the chat template cuts nothing",
    ):
        assert part in body, part
    (run / "test.csv").write_text("test/nll,test/gap_words\n2.125,-0.5\n")
    export_checkpoint(run / "checkpoints" / "last.ckpt", tmp_path / "second")
    body = (tmp_path / "second" / "README.md").read_text(encoding="utf-8")
    assert "| test/gap_words | -0.5 |\n| test/nll | 2.125 |" in body and "val/nll" not in body
    export_checkpoint(plain[0], tmp_path / "third")
    body = (tmp_path / "third" / "README.md").read_text(encoding="utf-8")
    assert "exported without its run folder" in body and "None: the model was not tested" in body


# What is refused


def test_the_command_writes_a_folder_once(
    plain: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert main(["export", str(plain[0]), str(tmp_path / "out")]) == 0
    assert f"{plain[0]} exported to {tmp_path / 'out'}" in capsys.readouterr().out
    assert main(["export", str(plain[0]), str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'} already exists and is not empty; name a new folder." in capsys.readouterr().err


def test_files_that_are_not_our_checkpoints_are_refused_in_one_sentence(
    plain: tuple[Path, CoHModule, CoHDataModule], base: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    shutil.copy(plain[0], tmp_path / "run" / "checkpoints" / "last.ckpt")
    byte_level().save_pretrained(tmp_path / "tokenizer")
    for path, settings, message in (
        (tmp_path / "none.ckpt", {}, "There is no checkpoint file"),
        (tmp_path / "other.ckpt", {}, "was not written by CoHModule"),
        (tmp_path / "text.ckpt", {}, "can't be read as a checkpoint"),
        (Path(base), {}, "is a folder and not a checkpoint; look into the checkpoints/ folder of a run"),
        (
            tmp_path / "run",
            {},
            f"is a folder and not a checkpoint; there is one at {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}",
        ),
        (
            plain[0],
            {"tokenizer": str(tmp_path / "tokenizer")},
            "is not the tokenizer that the checkpoint was trained with",
        ),
    ):
        with pytest.raises(InputError, match=message):
            export_checkpoint(path, tmp_path / "out", **settings)
        assert not (tmp_path / "out").exists()


class Evil:
    def __init__(self, module: Any = os.system) -> None:
        self.run = module

    def __reduce__(self) -> Any:
        return self.run, ("touch ran",)


@pytest.mark.parametrize("evil", [os.system, getattr, torch.load, pickle.loads])
def test_metadata_with_other_names_than_torch_writes_is_refused_and_not_run(
    evil: Any, plain: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sharded(plain[0], tmp_path / "shards.ckpt")
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = Evil(evil)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError,
        match=r"its metadata names .*, which torch never writes there and which could run any code; it is not read",
    ):
        export_checkpoint(folder, tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="which could run any code"):
        read_checkpoint(folder)


def test_a_file_with_more_than_plain_data_is_refused_and_not_run(
    plain: tuple[Path, CoHModule, CoHDataModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(torch.load(plain[0], weights_only=True) | {"more": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=r"can't be read as a checkpoint .* or hold more than plain data"):
        export_checkpoint(tmp_path / "evil.ckpt", tmp_path / "out")
    assert not (tmp_path / "ran").exists()
