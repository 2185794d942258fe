"""scorers.py: what people's code gives back is checked, and a reward model gives each completion the score that it gets
alone, whatever shares its batch.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers_for_tests import CHATML, GEMMA, byte_level, character

from coh_lightning import metrics
from coh_lightning.completions import Completion
from coh_lightning.errors import InputError
from coh_lightning.records import Candidate, Feedback
from coh_lightning.scorers import TAKEN, RewardModel, load_critic, load_scorer, score, turns
from coh_lightning.turns import Part, Turn


def completion(text: str, prompt: str = "Name a fruit.", number: int = 0, **more: Any) -> Completion:
    marked = {
        "prompt": f"{prompt}\n\nA good answer:\n",
        "shown": prompt,
        "marker": "A good answer:\n",
        "prompt_sha": "",
    }
    return Completion(
        **{
            "id": f"r{number}:good:0",
            "prompt_id": f"r{number}",
            "system": "run",
            "ask": "good",
            "text": text,
            **marked,
            **more,
        }
    )


@pytest.fixture
def raters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with somebody's module of raters in it."""
    (tmp_path / "my_raters.py").write_text(
        """
import math
def length(completion):
    return {"length": len(completion.text)}
def both(completions):
    return [{"length": len(one.text), "a": completion_number} for completion_number, one in enumerate(completions)]
both.batched = True
def short(completions):
    return [{"length": 1}]
short.batched = True
def text(completion):
    return {"length": "long"}
def nan(completion):
    return {"length": math.nan if completion.text == "b" else 1}
def truth(completion):
    return {"polite": True}
def bare(completion):
    return 3.0
def changing(completion):
    return {"a": 1, completion.text: 2}
def slash(completion):
    return {"a/b": 1}
def wrong(completion):
    return {"x": 1 / 0}
def words(completion):
    return {"words": 1}
def remark(completion):
    return "  it is short " if completion.text == "a" else ""
LIMIT = 3
class Rater:
    def polite(self, completion):
        return {"polite": 1}
rater = Rater()
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_raters", None)


A, B = completion("a", number=0), completion("b", number=1)


def test_a_function_is_found_by_its_import_path_with_a_colon_or_a_dot(raters: Path) -> None:
    for path in ("my_raters:length", "my_raters.length"):
        assert load_scorer(path)([A, B]) == [{"length": 1.0}, {"length": 1.0}]
    assert load_scorer("my_raters:rater.polite")([A]) == [{"polite": 1.0}]


def test_scores_are_added_to_those_that_a_completion_has_and_the_completion_given_stays(raters: Path) -> None:
    once = score([A, B], load_scorer("my_raters:length"))
    twice = score(once, load_scorer("my_raters:truth"))
    assert [one.scores for one in twice] == [{"length": 1.0, "polite": 1.0}] * 2
    assert A.scores == {} and once[0].scores == {"length": 1.0}
    assert [one.id for one in twice] == ["r0:good:0", "r1:good:0"]
    assert score([], load_scorer("my_raters:nan")) == []


def test_a_batched_function_gets_all_completions_at_once(raters: Path) -> None:
    assert load_scorer("my_raters:both")([A, B]) == [{"length": 1.0, "a": 0.0}, {"length": 1.0, "a": 1.0}]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_raters", "'my_raters' is no import path; give package.module:function"),
        ("my raters:length", "is no import path"),
        ("raters.py:length", "no module 'raters' to import 'raters.py:length' from"),
        ("not_there:length", "no module 'not_there' to import"),
        ("my_raters:lenght", "The module 'my_raters' has no 'lenght'; did you mean 'length'?"),
        ("my_raters:LIMIT", "'my_raters:LIMIT' is int 3, not a function"),
        ("my_raters:Rater", "not a function; name one that takes a Completion"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused_by_what_is_wrong_with_it(raters: Path, path: str, message: str) -> None:
    with pytest.raises(InputError, match=".*".join(message.split("*")).replace("?", r"\?")):
        load_scorer(path)


def test_a_module_that_fails_to_import_keeps_its_own_error(raters: Path) -> None:
    (raters / "broken_raters.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_scorer("broken_raters:length")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "text",
            "my_raters:text gave str 'long' as 'length' of the completion 'r0:good:0'; a score must be a finite number",
        ),
        ("nan", "my_raters:nan gave float nan as 'length' of the completion 'r1:good:0'"),
        ("bare", "my_raters:bare gave float 3.0 for the completion 'r0:good:0'; it must return a mapping"),
        ("changing", "gave the names a, b for the completion 'r1:good:0', but a before"),
        ("slash", "under the name str 'a/b'"),
        ("short", "gave 1 results for 2 completions"),
    ],
)
def test_what_a_scorer_gives_back_is_refused_by_the_completion(raters: Path, function: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_scorer(f"my_raters:{function}")([A, B])


def test_names_stay_the_same_from_call_to_call(raters: Path) -> None:
    scorer = load_scorer("my_raters:changing")
    scorer([A])
    with pytest.raises(InputError, match="gave the names a, b for the completion 'r1:good:0', but a before"):
        scorer([B])


def test_an_error_inside_a_scorer_says_which_completion_it_was_given(raters: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        load_scorer("my_raters:wrong")([A])
    assert caught.value.__notes__ == ["my_raters:wrong raised this, given the completion 'r0:good:0'"]


def test_two_scorers_never_write_over_each_other_or_over_a_completions_own_numbers(raters: Path) -> None:
    once = score([A], load_scorer("my_raters:length"))
    with pytest.raises(
        InputError, match="gives 'length' for the completion 'r0:good:0', a name that an earlier scorer gave"
    ):
        score(once, load_scorer("my_raters:length"))
    with pytest.raises(InputError, match=r"gives 'words' .* a name that every completion's own numbers have"):
        score([A], load_scorer("my_raters:words"))


def test_the_names_of_a_completions_own_numbers_are_all_taken() -> None:
    assert set(TAKEN) == {*metrics.VALUES, "distinct", "copied"}


def test_a_critic_gives_words_about_each_completion(raters: Path) -> None:
    critic = load_critic("my_raters:remark")
    assert critic(A) == "it is short"
    with pytest.raises(InputError, match="The critic my_raters:remark gave str '' for the completion 'r1:good:0'"):
        critic(B)


POST = "post : Anna went to the market . it was Monday . she wanted bread ."


def test_the_embedded_worlds_rater_is_a_scorer_and_a_critic() -> None:
    one = completion("Anna went to the market on Friday .", POST)
    assert load_scorer("world")([one]) == [
        {"accuracy": 2 / 3, "coverage": 0.5, "coherence": 1.0, "overall": pytest.approx((2 / 3 + 0.5 + 1) / 3)}
    ]
    assert load_critic("world")(one) == "it gets the day wrong and leaves out the reason"
    with pytest.raises(
        InputError,
        match=r"world.evaluate:score, given the completion 'r0:good:0': .* is not a post of the embedded world",
    ):
        load_scorer("world")([completion("Anna went .", "Name a fruit.")])


def test_scorers_of_the_world_need_no_torch() -> None:
    code = (
        "import sys; from coh_lightning.scorers import load_scorer; load_scorer('world'); print('torch' in "
        "sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]


# ---------------------------------------------------------------------------------------------------------------- the
# prompt's turns


def test_a_conversation_is_taken_apart_again_and_its_hash_says_whether_rightly() -> None:
    from coh_lightning.records import prompt_sha
    from coh_lightning.turns import read_prompt

    talk = (
        Turn("system", (Part("Be brief."),)),
        *(Turn(role, (Part(text),)) for role, text in [("user", "Hi\n\nthere"), ("assistant", ""), ("user", "Fruit?")]),
    )
    record = Feedback("7", talk, (Candidate("Apple"),))  # type: ignore[arg-type]
    one = completion("Apple", read_prompt(record.prompt), prompt_sha=prompt_sha(record))
    assert turns(one) == talk
    said = Feedback(
        "8", (Turn("user", (Part("User: a\n\nAssistant: b\n\nUser: what did I say?"),)),), (Candidate("a"),)
    )
    assert turns(completion("a", read_prompt(said.prompt), prompt_sha=prompt_sha(said))) == said.prompt


def test_a_feedback_sentence_is_never_scored_with_the_prompt() -> None:
    with pytest.raises(
        InputError, match="'r0:good:0' has no 'shown', only its prompt with the feedback sentence in it"
    ):
        turns(completion("Apple", shown=None))
    assert turns(completion("Apple", shown=None, marker=""))[0].text == "Name a fruit.\n\nA good answer:\n"
    assert turns(completion("Apple", shown=None, marker="A bad answer:")), "it does not stand in the prompt"


# ----------------------------------------------------------------------------------------------------------------
# reward models

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
def test_a_batch_gives_each_completion_the_reward_that_it_gets_alone(
    tmp_path: Path, name: str, template: str | None
) -> None:
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


def test_an_architecture_that_minds_padding_gets_completions_of_equal_length_together(tmp_path: Path) -> None:
    folder = saved(
        tmp_path, "xlnet", d_model=32, n_layer=2, n_head=4, d_inner=48, pad_token_id=0
    )  # reads the score at the row's very end
    model = RewardModel(folder, batch_size=4, device="cpu")
    rows = [completion(text, number=number) for number, text in enumerate([*TEXTS, "A pear!"])]
    with pytest.warns(UserWarning, match=r"\(xlnet\) scores a padded row otherwise than alone"):
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
def test_a_config_that_says_what_its_outputs_are_is_believed(tmp_path: Path, kind: str) -> None:
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


def test_what_is_too_long_is_cut_as_prompts_are_and_counted(tmp_path: Path) -> None:
    import transformers as hf

    saved(tmp_path, "llama", pad_token_id=0, vocab_size=120)
    character(bos=True).save_pretrained(tmp_path)
    model = RewardModel(tmp_path, max_tokens=14, device="cpu")  # this tokenizer adds nothing to a pair
    tokenizer: hf.PreTrainedTokenizerFast = model.tokenizer

    def read(text: str, prompt: str) -> str:
        return str(
            tokenizer.decode(model._fitted(turns(completion(text, prompt)), completion(text, prompt))["input_ids"])
        )

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


def test_old_turns_go_first_whole_and_the_system_turn_stays(tmp_path: Path) -> None:
    saved(tmp_path, "llama", template=CHATML, pad_token_id=0)
    model = RewardModel(tmp_path, device="cpu")
    talk = [("system", "Be brief."), ("user", "Hello there"), ("assistant", "Hi"), ("user", "Name a fruit.")]
    prompt = [Turn(role, (Part(text),)) for role, text in talk]  # type: ignore[arg-type]
    full = len(model._fitted(prompt, completion("A pear."))["input_ids"])
    model.max_tokens = full - 1
    read = model.tokenizer.decode(model._fitted(prompt, completion("A pear."))["input_ids"])
    kept = [{"role": role, "content": text} for role, text in [talk[0], talk[3], ("assistant", "A pear.")]]
    assert read == model.tokenizer.apply_chat_template(kept, tokenize=False)


def test_the_limit_is_what_the_model_has_positions_for(tmp_path: Path) -> None:
    assert RewardModel(saved(tmp_path / "a", "llama", max_position_embeddings=64), device="cpu").max_tokens == 64
    # a RoBERTa counts its positions from behind the pad token's id
    model = RewardModel(saved(tmp_path / "b", "roberta", max_position_embeddings=66, pad_token_id=1), device="cpu")
    assert model.max_tokens == 64
    with pytest.warns(UserWarning, match="at most 64 tokens"):
        model([completion("An apple. " * 50)])


def test_a_chat_template_that_refuses_a_prompt_is_named_with_the_completion(tmp_path: Path) -> None:
    from coh_lightning.records import prompt_sha
    from coh_lightning.turns import read_prompt

    model = RewardModel(saved(tmp_path, "llama", template=GEMMA, pad_token_id=0), device="cpu")
    record = Feedback("7", (Turn("system", (Part("Be brief."),)), Turn("user", (Part("Hi"),))), (Candidate("a"),))
    with pytest.raises(InputError, match="refuses the completion 'r0:good:0': System role not supported"):
        model([completion("a", read_prompt(record.prompt), prompt_sha=prompt_sha(record))])


def test_a_language_model_without_a_head_is_no_reward_model(tmp_path: Path) -> None:
    import transformers as hf

    tokenizer = byte_level()
    hf.AutoModelForCausalLM.from_config(hf.LlamaConfig(**SIZES, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        InputError,
        match=r"is no reward model: 1 of its weights are not in its files and would be random \(score.weight\)",
    ):
        RewardModel(tmp_path, device="cpu")
    with pytest.raises(InputError, match="there is no such folder"):
        RewardModel(tmp_path / "nowhere", device="cpu")


def test_a_reward_model_is_a_scorer_like_any_other(tmp_path: Path, raters: Path) -> None:
    model = RewardModel(saved(tmp_path / "model", "llama", pad_token_id=0), device="cpu")
    rows = score(score([A, B], load_scorer("my_raters:length")), model)
    assert [sorted(one.scores) for one in rows] == [["length", "reward"]] * 2
