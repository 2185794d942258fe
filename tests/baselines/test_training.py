"""TRL's trainers on our ids: the tokens of the loss, the reward that TRL sees, resumption, the folder."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from coh_lightning.__main__ import main
from coh_lightning.baselines.output import DONE, Run
from coh_lightning.baselines.rewards import Reward, rewards_of
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.reward_model import RewardModel
from coh_lightning.generation.scorers import score
from coh_lightning.module import CoHModule
from coh_lightning.world.feedback import load_base, world_prompts
from helpers import tokenizers
from helpers.feedback import TINY, pairs, write

pytest.importorskip("trl")

WORLD = ["--config", "conf/experiment/world_sft_best.yaml"]


@pytest.fixture
def records(tmp_path: Path) -> list[str]:
    """Settings of the world's model on six comparisons, all of them for training."""
    feedback = write(tmp_path / "feedback.jsonl", pairs(6))
    shares = ["--data.validation_share=0", "--data.test_share=0"]
    return [*WORLD, f"--data.feedback={feedback}", f"--data.cache_dir={tmp_path / 'cache'}", *shares]


@pytest.fixture
def chat(tmp_path: Path) -> list[str]:
    """Settings of a new chat model whose pad token is its end token, on 40 comparisons."""
    tokenizer = tokenizers.byte_level(tokenizers.CHATML)
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    torch.manual_seed(0)
    folder, module = tmp_path / "base", CoHModule(from_config=TINY | {"vocab_size": len(tokenizer)})
    module.configure_model()
    module.lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    feedback = write(tmp_path / "feedback.jsonl", pairs(40))
    shares = ["--data.validation_share=0.3", "--data.test_share=0.1", f"--data.cache_dir={tmp_path / 'cache'}"]
    sizes = [f"--data.max_{name}_tokens={number}" for name, number in (("prompt", 128), ("chain", 256))]
    named = ["--data.row_tokens=256", "--data.prompt_format.kind=chat", f"--model.name_or_path={folder}"]
    return [f"--data.feedback={feedback}", *named, *sizes, *shares]


def length(completion: Completion) -> dict[str, float]:
    return {"length": float(len(completion.text))}


def trl(*words: str) -> None:
    assert main(["trl", *words]) == 0


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / DONE).read_text())


def log_probability(lm: Any, prompt: Sequence[int], completion: Sequence[int]) -> float:
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        logs = lm(ids).logits[0].double().log_softmax(dim=-1)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return float(sum(logs[place, ids[0, place + 1]] for place in places))


@pytest.mark.slow
def test_dpo_sums_the_log_probabilities_of_completions_with_their_end_token(
    records: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coh_lightning.baselines import training

    seen: list[Any] = []
    real = training.train
    monkeypatch.setattr(training, "train", lambda *args, **words: seen.append(args[3]) or real(*args, **words))
    trl("dpo", *records, "--steps", "2", "--batch", "6", "--output", str(tmp_path / "dpo"), "--lr", "1e-4")
    first = result(tmp_path / "dpo")["log"][0]
    lm, _ = load_base()
    for name in ("chosen", "rejected"):
        wanted = [log_probability(lm, row["prompt_ids"], row[f"{name}_ids"]) for row in seen[0].rows]
        assert first[f"logps/{name}"] == pytest.approx(sum(wanted) / 6, rel=1e-4)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert result(tmp_path / "dpo")["tokens"]["good"] == 2 * sum(len(row["chosen_ids"]) for row in seen[0].rows)


@pytest.mark.slow
def test_the_folder_is_tested_as_a_model_of_ours_and_is_not_made_twice(
    records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["kto", *records, "--steps", "2", "--batch", "4", "--output", str(tmp_path / "kto")]
    trl(*command)
    made = result(tmp_path / "kto")
    assert (made["steps"], made["rows"], made["resumed_from"]) == (2, 12, None)
    assert made["settings"]["trainer"] == "kto" and set(made["versions"]) > {"trl", "torch"}
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kto").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "trl.json"} <= set(before)
    assert not {"checkpoints", "settings.json"} & set(before)
    trl(*command)
    assert "is done" in capsys.readouterr().err
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "kto").iterdir()}
    assert main(["trl", *command, "--lr=1e-3"]) == 2
    assert "was made with lr 3e-05, not 0.001; name a new --output" in capsys.readouterr().err
    few = ["--data.feedback=world", "--data.max_test_prompts=4", "--data.test_share=0.05"]
    model = f"--model.name_or_path={tmp_path / 'kto'}"
    assert main(["test", *records, *few, model, f"--run.folder={tmp_path / 'test'}"]) == 0
    assert "test/overall_good" in (tmp_path / "test" / "test.csv").read_text()


def test_good_and_bad_completions_weigh_the_same_in_kto() -> None:
    from coh_lightning.baselines.examples import Examples
    from coh_lightning.baselines.training import label_weights

    for good, bad, weights in ((2, 6, (3.0, 1.0)), (6, 2, (1.0, 3.0)), (4, 4, (1.0, 1.0))):
        found = label_weights(Examples([{"label": True}] * good + [{"label": False}] * bad))
        assert found == dict(zip(("desirable_weight", "undesirable_weight"), weights, strict=True))
    assert label_weights(Examples([{"label": True}])) == {}, "TRL's own"


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["dpo", "rloo"])
def test_an_interrupted_run_continues_to_the_same_weights(
    trainer: str, records: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coh_lightning.baselines import training

    command = [trainer, *records, "--steps", "5", "--batch", "2", "--save-every", "2", "--lr", "1e-3"]
    if trainer == "rloo":
        command += [f"--reward={__name__}:length", "--max-new-tokens", "8"]
    trl(*command, "--output", str(tmp_path / "whole"))

    def interrupt(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._Pace, "on_step_end", interrupt, raising=False)
        assert main(["trl", *command, "--output", str(tmp_path / "parts")]) == 130
    assert not (tmp_path / "parts" / DONE).exists()
    assert main(["trl", *command, "--output", str(tmp_path / "parts"), "--seed=1"]) == 2
    trl(*command, "--output", str(tmp_path / "parts"))
    assert result(tmp_path / "parts")["resumed_from"] == 2
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    losses = [[entry["loss"] for entry in result(tmp_path / name)["log"]] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) == 5


@pytest.mark.slow
def test_the_reward_in_trl_is_the_world_raters_of_the_ids_that_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], list[list[int]]]] = []
    real = Reward.of_completion_ids

    def watched(self: Reward, prompts: list[str], completion_ids: list[list[int]], **more: Any) -> list[float]:
        seen.append((prompts, completion_ids))
        made = [self.completion(*pair) for pair in zip(prompts, completion_ids, strict=True)]
        assert [one.prompt_id for one in made] == prompts
        self.wanted = [*getattr(self, "wanted", []), made]  # type: ignore[attr-defined]
        owners.append(self)
        return real(self, prompts, completion_ids, **more)

    owners: list[Any] = []
    monkeypatch.setattr(Reward, "of_completion_ids", watched)
    output = ["--output", str(tmp_path / "rloo"), "--steps", "3", "--batch", "4", "--max-new-tokens", "16"]
    feedback = tmp_path / "world.jsonl"
    feedback.write_text("".join(json.dumps(one.to_json()) + "\n" for one in world_prompts(12)))
    trl("rloo", *WORLD, f"--data.feedback={feedback}", "--data.test_share=0", "--reward=world", *output)
    logged = [entry["reward"] for entry in result(tmp_path / "rloo")["log"]]
    from coh_lightning.generation.scorers import load_scorer

    for (prompts, ids), made, mean in zip(seen, owners[0].wanted, logged, strict=True):
        assert len(prompts) == len(ids) == 16 and prompts == [name for name in prompts[::4] for _ in range(4)]
        scores = [one.scores["overall"] for one in score(made, load_scorer("world"))]
        assert mean == pytest.approx(sum(scores) / 16, abs=1e-6)
    assert {one.stop for made in owners[0].wanted for one in made} == {"end", "length"}


@pytest.mark.slow
def test_a_reward_model_of_a_chat_model_scores_in_test_as_it_was_trained(chat: list[str], tmp_path: Path) -> None:
    trl("reward", *chat, "--steps", "30", "--batch", "8", "--lr", "3e-3", "--output", str(tmp_path / "reward"))
    held_out = result(tmp_path / "reward")["held_out"]
    assert held_out["pairs"] > 5 and held_out["accuracy"] > 0.8, "the good answers begin with other words"
    model = RewardModel(tmp_path / "reward")
    assert model.model.config.pad_token_id not in (model.tokenizer.eos_token_id, None)
    messages = ({"role": "user", "content": "Question 3?"},)
    prompt = "<|im_start|>user\nQuestion 3?<|im_end|>\n<|im_start|>assistant\n"
    one = Completion("a", "a", "s", prompt, "", "", "", "The answer is 3", messages=messages)
    row = model.tokenize(one)
    assert model.tokenizer.decode(row["input_ids"]) == prompt + "The answer is 3<|im_end|>"
    cut = row["input_ids"][:-1]
    [found], [ended, broken] = model([one]), rewards_of(model, [row["input_ids"], cut])
    assert found["reward"] == ended != broken
    rloo = ["--reward", str(tmp_path / "reward"), "--steps", "2", "--batch", "2", "--max-new-tokens", "8"]
    trl("rloo", *chat, *rloo, "--beta", "0.05", "--output", str(tmp_path / "rloo"))
    assert result(tmp_path / "rloo")["log"][-1]["kl"] is not None
    test = [f"--model.name_or_path={tmp_path / 'rloo'}", f"--model.generation.reward_model={tmp_path / 'reward'}"]
    chat = [word for word in chat if "name_or_path" not in word]
    sampling = ["--model.generation.sampling.max_new_tokens=8", "--trainer.accelerator=cpu"]
    method = ["--data.method=conf/method/sft.yaml", f"--run.folder={tmp_path / 'test'}"]
    assert main(["test", *chat, *test, *sampling, *method]) == 0
    assert "test/reward_good" in (tmp_path / "test" / "test.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dpo", *WORLD], "trl: --output is missing"),
        (["dpo", "--output", "x"], "trl: there is no feedback; give --config"),
        (["ppo", "--output", "x"], "trl: argument trainer: invalid choice: 'ppo'"),
        (["dpo", *WORLD, "--output=x", "--reward=world"], "trl: --reward is an option of rloo, not of dpo"),
        (["rloo", *WORLD, "--output=x"], "trl: --reward is missing; give a folder of"),
        (["rloo", *WORLD, "--output=x", "--reward=world", "--samples=1"], "trl: --samples is 1, but a completion"),
        (["kto", *WORLD, "--output=x", "--micro-batch=1"], "trl: --micro-batch is 1, but KTO compares completions"),
        (["reward", *WORLD, "--output=x", "--beta=1"], "trl: --beta is 1, but a reward model has none"),
        (["dpo", *WORLD, "--output=x", "--lr=0"], "trl: --lr is 0.0; it must be > 0"),
        (["dpo", *WORLD, "--output=x", "--steps=0"], "trl: --steps is 0; it must be at least 1"),
        (["dpo", *WORLD, "--output=x", "--stepz=0"], "trl has no option --stepz; did you mean '--steps'?"),
    ],
)
def test_mistakes_are_named_at_once(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trl", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_mistake_leaves_no_folder(records: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out"), "--batch=2"]
    (tmp_path / "last.ckpt").write_text("")
    for words, message in (
        (["rloo", *records, *output, "--reward=./none"], "--reward is ./none, and there is no such folder"),
        (["rloo", *records, *output, "--reward=world", "--batch=9"], "gives 6 prompts, and a step takes 9; lower"),
        (["dpo", *records, *output, "--batch=6", "--micro-batch=4"], "--micro-batch is 4, which doesn't divide the 6"),
        (["dpo", *records, *output, f"--model.name_or_path={tmp_path / 'last.ckpt'}"], "make one with `coh export`"),
    ):
        assert main(["trl", *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from coh_lightning.cli import trl_baselines

    monkeypatch.setattr(trl_baselines, "find_spec", lambda name: None)
    assert main(["trl", "dpo", *WORLD, "--output=x"]) == 2
    assert "trl is not installed; install it with pip install 'coh_lightning[trl]'" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    run = Run("dpo", tmp_path / "out", "world", steps=1, batch=1, lr=1.0, seed=0)
    assert not run.is_done()
    run.begin()
    assert not run.is_done(), "an unfinished run goes on"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    for folder in ("other", "other/file"):
        with pytest.raises(ValueError, match="already exists and is no folder of"):
            Run("dpo", tmp_path / folder, "world", steps=1, batch=1, lr=1.0, seed=0).is_done()
    (tmp_path / "out" / DONE).write_text("{")
    with pytest.raises(ValueError, match=r"trl\.json can't be read"):
        run.is_done()
