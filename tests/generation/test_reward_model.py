"""A reward model scores a completion the same whatever shares its batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.generation.reward_model import RewardModel, prompt_turns
from coh_lightning.generation.scorers import score
from helpers.completions import completion
from helpers.tokenizers import CHATML, GEMMA, byte_level, character


def test_the_prompt_is_the_messages_or_else_shown_as_one_turn() -> None:
    talk = [("system", "Be brief."), ("user", "Hi\n\nAssistant: no"), ("assistant", ""), ("user", "Fruit?")]
    one = completion("Apple", messages=tuple({"role": role, "content": text} for role, text in talk))
    assert [(turn.role, turn.text) for turn in prompt_turns(one)] == talk
    said = "User: a\n\nAssistant: b\n\nUser: what did I say?"
    assert prompt_turns(completion("a", said)) == (Turn("user", (Part(said),)),)


def test_a_feedback_sentence_is_never_scored_with_the_prompt() -> None:
    with pytest.raises(
        InputError, match="'r0:good:0' has no 'shown', only its prompt with the feedback sentence in it"
    ):
        prompt_turns(completion("Apple", shown=None))
    assert prompt_turns(completion("Apple", shown=None, marker=""))[0].text == "Name a fruit.\n\nA good answer:\n"
    assert prompt_turns(completion("Apple", shown=None, marker="A bad answer:")), "it does not stand in the prompt"


TEXTS = [
    "A pear.",
    "",
    "An apple, which is red or green and grows on trees in gardens and orchards.",
    "No.",
    "A plum, then.",
    "x" * 40,
    "A pear. ",
    "é",
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def saved(
    folder: Path, kind: str, *, template: str | None = None, labels: Mapping[int, str] | None = None, **settings: Any
) -> Path:
    """A random reward model, saved as transformers saves one."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    tokenizer = byte_level(template)
    sizes = (
        SIZES
        | {"vocab_size": len(tokenizer), "num_labels": 1}
        | ({"max_position_embeddings": 512} if kind != "xlnet" else {})
        | settings
    )
    if labels:
        sizes |= {"id2label": dict(labels), "label2id": {name: number for number, name in labels.items()}}
        sizes.pop("num_labels")
    config = hf.AutoConfig.for_model(kind, **sizes)
    model = hf.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def alone(folder: Path, row: Mapping[str, Sequence[int]]) -> list[float]:
    """What transformers gives for one row, without any padding."""
    import torch
    import transformers as hf

    model = hf.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return list(model(**{key: torch.tensor([value]) for key, value in row.items()}).logits[0].tolist())


SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"pad_token_id": None},
    "llama_pads_with_its_end": {"pad_token_id": 1, "eos_token_id": 1},
    "qwen2": {"pad_token_id": 0, "num_key_value_heads": 2},
    "gpt2": {"pad_token_id": None, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "bert": {},
    "roberta": {"pad_token_id": 2},
    "modernbert": {
        "pad_token_id": 0,
        "cls_token_id": 0,
        "sep_token_id": 1,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
    },
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("template", [None, CHATML], ids=["pair", "chat"])
def test_a_reward_does_not_depend_on_the_batch(tmp_path: Path, name: str, template: str | None) -> None:
    folder = saved(tmp_path, name.split("_")[0], template=template, **SHAPES[name])
    model = RewardModel(folder, batch_size=3, device="cpu")
    rows = [completion(text, "Name a fruit." if number % 2 else "Which?", number) for number, text in enumerate(TEXTS)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no cut, no fallback
        got = [one["reward"] for one in model(rows)]
    tokenizer = byte_level(template)
    expected = []
    for row in rows:
        if template is None:
            ids = tokenizer(row.shown, row.text)
        else:
            messages = [{"role": "user", "content": row.shown}, {"role": "assistant", "content": row.text}]
            ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)
        keys = ("input_ids", "attention_mask") + (
            ("token_type_ids",) if name == "bert" and "token_type_ids" in ids else ()
        )
        expected += alone(folder, {key: ids[key] for key in keys})
    assert got == pytest.approx(expected, abs=1e-5)
    assert max(got) - min(got) > 0.1  # the model does tell them apart
    assert [one["reward"] for one in model(rows[::-1])][::-1] == pytest.approx(got, abs=1e-5)


def test_an_architecture_that_cant_be_padded_gets_batches_of_equal_length(tmp_path: Path) -> None:
    folder = saved(
        tmp_path, "xlnet", d_model=32, n_layer=2, n_head=4, d_inner=48, pad_token_id=0
    )  # reads the score at the row's very end
    model = RewardModel(folder, batch_size=4, device="cpu")
    rows = [completion(text, number=number) for number, text in enumerate([*TEXTS, "A pear!"])]
    with pytest.warns(UserWarning, match=r"\(xlnet\) scores a padded row differently"):
        got = [one["reward"] for one in model(rows)]
    ids = [byte_level()(row.shown, row.text)["input_ids"] for row in rows]
    assert got == pytest.approx([alone(folder, {"input_ids": row})[0] for row in ids], abs=1e-5)


def test_several_labels_give_a_score_each_by_their_names(tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama", labels={0: "helpful", 1: "harmless", 2: "brief"}, pad_token_id=0)
    got = RewardModel(folder, device="cpu")([completion("A pear.")])[0]
    ids = byte_level()("Name a fruit.", "A pear.")["input_ids"]
    assert got == pytest.approx(
        dict(zip(("helpful", "harmless", "brief"), alone(folder, {"input_ids": ids}), strict=True)), abs=1e-5
    )


@pytest.mark.parametrize("kind", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_problem_type_of_a_config_is_followed(tmp_path: Path, kind: str) -> None:
    import torch

    folder = saved(tmp_path, "llama", labels={0: "good", 1: "bad"}, pad_token_id=0, problem_type=kind)
    got = RewardModel(folder, device="cpu")([completion("A pear.")])[0]
    plain = torch.tensor(alone(folder, {"input_ids": byte_level()("Name a fruit.", "A pear.")["input_ids"]}))
    expected = {
        "single_label_classification": plain.softmax(0),
        "multi_label_classification": plain.sigmoid(),
        "regression": plain,
    }[kind]
    assert [got["good"], got["bad"]] == pytest.approx(expected.tolist(), abs=1e-5)


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "llama", labels={0: "good", 1: "bad"}, pad_token_id=0)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"1": "bad"', '"1": "good"'))
    with pytest.raises(InputError, match="are good, good, and two share a name"):
        RewardModel(folder, device="cpu")


def test_long_inputs_are_cut_like_training_prompts_and_counted(tmp_path: Path) -> None:
    import transformers as hf

    saved(tmp_path, "llama", pad_token_id=0, vocab_size=120)
    character(bos=True).save_pretrained(tmp_path)
    model = RewardModel(tmp_path, max_tokens=14, device="cpu")  # this tokenizer adds nothing to a pair
    tokenizer: hf.PreTrainedTokenizerFast = model.tokenizer

    def read(text: str, prompt: str) -> str:
        return str(tokenizer.decode(model.tokenize(completion(text, prompt))["input_ids"]))

    once = tokenizer.decode(tokenizer("abcd", "xyz")["input_ids"])
    assert read("xyz", "abcd") == once and (model.prompts_cut, model.completions_cut) == (0, 0)
    room = 14
    assert read("xyz", "0123456789abcdefghij").endswith("xyz") and (model.prompts_cut, model.completions_cut) == (1, 0)
    assert read("xyz", "0123456789abcdefghij").replace("xyz", "").endswith("0123456789abcdefghij"[-(room - 3) :])
    assert read("0123456789abcdefghij", "abcd").endswith("0123456789abcdefghij"[:room]) and (
        model.prompts_cut,
        model.completions_cut,
    ) == (3, 1)
    fresh = RewardModel(tmp_path, max_tokens=14, device="cpu")
    with pytest.warns(
        UserWarning, match="reads at most 14 tokens: 1 prompts and 0 completions of the first 2 were cut"
    ):
        scores = fresh([completion("xyz", "0123456789abcdefghij"), completion("xyz", "abcd")])
    assert scores[0] == pytest.approx(model([completion("xyz", "0123456789abcdefghij"[-(room - 3) :])])[0], abs=1e-5)


def test_old_turns_are_dropped_first_and_the_system_turn_stays(tmp_path: Path) -> None:
    saved(tmp_path, "llama", template=CHATML, pad_token_id=0)
    model = RewardModel(tmp_path, device="cpu")
    talk = [("system", "Be brief."), ("user", "Hello there"), ("assistant", "Hi"), ("user", "Name a fruit.")]
    one = completion("A pear.", messages=tuple({"role": role, "content": text} for role, text in talk))
    model.max_tokens = len(model.tokenize(one)["input_ids"]) - 1
    read = model.tokenizer.decode(model.tokenize(one)["input_ids"])
    kept = [{"role": role, "content": text} for role, text in [talk[0], talk[3], ("assistant", "A pear.")]]
    assert read == model.tokenizer.apply_chat_template(kept, tokenize=False)


def test_the_limit_is_the_models_number_of_positions(tmp_path: Path) -> None:
    assert RewardModel(saved(tmp_path / "a", "llama", max_position_embeddings=64), device="cpu").max_tokens == 64
    # a RoBERTa counts its positions from behind the pad token's id
    model = RewardModel(saved(tmp_path / "b", "roberta", max_position_embeddings=66, pad_token_id=1), device="cpu")
    assert model.max_tokens == 64
    with pytest.warns(UserWarning, match="at most 64 tokens"):
        model([completion("An apple. " * 50)])


def test_a_chat_template_that_refuses_a_prompt_is_named_with_the_completion(tmp_path: Path) -> None:
    model = RewardModel(saved(tmp_path, "llama", template=GEMMA, pad_token_id=0), device="cpu")
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    with pytest.raises(InputError, match="refuses the completion 'r0:good:0': System role not supported"):
        model([completion("a", messages=messages)])


def test_a_language_model_without_a_head_is_refused(tmp_path: Path) -> None:
    import transformers as hf

    tokenizer = byte_level()
    hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**SIZES, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        InputError,
        match=r"is not a reward model: 1 of its weights are not in its files and would be random \(score.weight\)",
    ):
        RewardModel(tmp_path, device="cpu")
    with pytest.raises(InputError, match="there is no such folder"):
        RewardModel(tmp_path / "nowhere", device="cpu")


def test_a_reward_model_is_a_scorer_like_any_other(tmp_path: Path) -> None:
    model = RewardModel(saved(tmp_path, "llama", pad_token_id=0), device="cpu")
    rows = score(score([completion("a"), completion("b")], lambda ones: [{"length": 1.0} for _ in ones]), model)
    assert [sorted(one.scores) for one in rows] == [["length", "reward"]] * 2
