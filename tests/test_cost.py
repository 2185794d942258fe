"""What training takes, on paper: the counts are those of real models, the page is what the command prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cost import FEEDBACK, GIB, KNOWN, MODELS, Machine, Model, main, memory, read_feedback, read_model, speed

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "cost.md"
TINY = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 130,
}


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KNOWN)
def test_parameters_are_counted_as_transformers_makes_them(kind: str, tied: bool, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **TINY, tie_word_embeddings=tied)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    assert read_model(tmp_path).parameters == lm.num_parameters()


def test_models_of_the_page_have_their_known_sizes() -> None:
    """As their authors state them: 1.54, 7.61 and 70.6 billion."""
    assert [model.parameters for model in MODELS] == [1_543_714_304, 7_615_616_512, 70_553_706_496]


def test_a_parameter_takes_sixteen_bytes_after_a_real_step(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("llama", **TINY)
    config.save_pretrained(tmp_path)
    lm = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(lm.parameters())
    ids = torch.arange(10)[None]
    lm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    tensors = [*lm.parameters(), *(parameter.grad for parameter in lm.parameters()), *moments]
    assert (
        sum(tensor.nbytes for tensor in tensors if tensor is not None)
        == memory(read_model(tmp_path), 1, FEEDBACK[0], Machine()).states
    )


def test_memory_and_time_by_hand() -> None:
    """A model of one block with round sizes, worked out on paper."""
    model = Model("m", "llama", 1, 10, 100, 2, 1, 5, 1000, False)
    matrices = 2 * 10 * 5 * 3 + 3 * 10 * 100  # q and o of 2 heads, k and v of 1; three matrices of the MLP
    assert model.parameters == matrices + 2 * 10 + 2 * 10_000 + 10
    machine = Machine(row_tokens=8, peak=1e6, utilization=0.5, within=1e3, between=1e2)
    one, four = (memory(model, gpus, FEEDBACK[0], machine) for gpus in (1, 4))
    assert one.states == 16 * model.parameters == 4 * four.states
    assert one.working == 2 * model.parameters
    assert four.working == 2 * (2 * (matrices + 20) + 20_000) + 4 * (matrices + 20)
    assert one.activations == four.activations == 8 * (2 * 10 + 4 * (8 * 10 + 4 * 100))
    assert one.logits == pytest.approx(8 * 0.28 * 1000 * 10)
    assert one.total == one.states + one.working + one.activations + one.logits + 2 * GIB
    operations = 8 * (4 * (2 * matrices + 4 * 10 * 389 / 2) + 3 * 2 * 10_000 * 0.28)
    alone, together, apart = (speed(model, gpus, FEEDBACK[0], machine) for gpus in (1, 8, 16))
    assert alone.arithmetic == pytest.approx(operations / 0.5e6) and alone.communication == 0
    assert together.communication == pytest.approx(8 * model.parameters * 7 / 8 / 1e3)
    assert apart.communication == pytest.approx(8 * model.parameters * 15 / 16 / 1e2)
    assert apart.tokens_per_second == pytest.approx(16 * 8 / apart.communication)


def test_sizes_of_your_own_feedback_come_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {"used": 10, "chains": 40, "tokens_plain": 4000, "tokens_tree": 1600, "tokens_in_loss": 800.0}
    (tmp_path / "data.json").write_text(json.dumps({"splits": {"train": train}}))
    one = read_feedback(tmp_path / "data.json")
    assert (one.plain, one.tree, one.chain, one.loss_share) == (400, 160, 100, 0.5)
    assert main([f"--data={tmp_path / 'data.json'}", "--gpus", "8"]) == 0
    assert f"{tmp_path.name} 400, 160 (2.5 times fewer)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nowhere"], "there is no nowhere; give a model's config.json or its folder."),
        (
            ["--model", "gpt2.json"],
            "gpt2.json is of the architecture gpt2; counted are llama, mistral, qwen2, qwen3",
        ),
        (["--model", "empty.json"], "empty.json is not the config.json of a language model: KeyError 'model_type'."),
        (["--data", "empty.json"], "empty.json is not the data.json of a run: KeyError 'splits'"),
        (["--gpus", "0"], "--gpus is 0; give numbers above 0."),
        (["--row-tokens", "-1"], "--row-tokens is -1; give a number above 0."),
    ],
)
def test_a_mistake_is_named(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "empty.json").write_text("{}")
    assert main([*words]) == 2
    assert message in capsys.readouterr().err
