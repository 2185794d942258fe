"""Figures of what is written: means, control gaps and refinement, by hand on a few completions, then through `fit`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from coh_lightning.callbacks import CompletionWriter, HumanEvalExport
from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.turns import Part, Turn, read_prompt
from coh_lightning.generation.figures import headline, summary, valued, with_copies, with_samples
from coh_lightning.generation.prompter import turns_before_answers
from coh_lightning.generation.request import Written
from coh_lightning.generation.sampling import Sampling
from coh_lightning.generation.settings import Generation
from coh_lightning.module import CoHModule
from helpers.feedback import EVERY_KIND, data_of, grouped, merged, method, tiny, usable, wording
from helpers.training import fitted, held_out_data, trainer


def completion(prompt: str, ask: str, text: str, sample: int = 0, **scores: float) -> Completion:
    return Completion(
        id=f"{prompt}:{ask}:{sample}",
        prompt_id=prompt,
        system="m",
        prompt="P",
        prompt_sha="s",
        ask=ask,
        marker="G",
        text=text,
        stop="end",
        completion_tokens=len(text.split()) + 1,
        scores=scores,
    )


def figures(*completions: Completion) -> dict[str, float]:
    return summary([valued(one) for one in completions])


def test_means_are_over_completions_and_named_by_value_and_ask() -> None:
    found = figures(
        completion("a", "good", "one two", help=1.0), completion("b", "good", "one two three four", help=0.5)
    )
    assert found["words_good"] == 3
    assert found["tokens_good"] == 4
    assert found["help_good"] == 0.75
    assert found["ended_good"] == 1


def test_the_control_gap_is_good_minus_bad_prompt_by_prompt() -> None:
    written = [
        completion("a", "good", "x", help=1.0),
        completion("a", "bad", "x", help=0.5),
        completion("b", "good", "x", help=0.25),
        completion("b", "bad", "x", help=0.5),
        completion("c", "good", "x", help=9.0),  # not asked for bad: of no use for a gap
    ]
    found = figures(*written)
    assert found["gap_help"] == pytest.approx((0.5 - 0.25) / 2)
    assert found["gap_help_low"] == -0.25 and found["gap_help_high"] == 0.5


def test_samples_of_a_prompt_count_as_one_prompt_in_a_gap() -> None:
    written = [
        *(completion("a", "good", "x", sample, help=1.0) for sample in range(9)),
        completion("a", "bad", "x", help=0.0),
        completion("b", "good", "x", help=0.0),
        completion("b", "bad", "x", help=0.0),
    ]
    assert figures(*written)["gap_help"] == 0.5


def test_intervals_are_over_prompts_however_many_samples_both_sides_have() -> None:
    def written(prompt: str, ask: str, values: list[float]) -> list[Completion]:
        return [completion(prompt, ask, "x", sample, help=value) for sample, value in enumerate(values)]

    found = figures(
        *written("a", "good", [1.0, 0.9, 0.8, 0.9] * 5),
        *written("a", "bad", [0.0, 0.2, 0.1, 0.1] * 5),
        *written("b", "good", [0.3, 0.5]),
        *written("b", "bad", [0.2, 0.2]),
    )
    assert found["gap_help"] == pytest.approx((0.8 + 0.2) / 2), "each prompt weighs the same"
    assert (found["gap_help_low"], found["gap_help_high"]) == pytest.approx((0.2, 0.8)), (
        "of two prompts, one or the other"
    )


def test_a_gap_is_good_minus_bad_whichever_comes_first() -> None:
    for first in ("good", "bad"):
        written = [
            completion("a", f"{first} wit", "x", help=9.0),
            completion("b", "good wit", "x", help=1.0),
            completion("b", "bad wit", "x", help=0.25),
        ]
        assert figures(*written)["gap_wit_help"] == 0.75


def test_each_attribute_has_a_gap_of_its_own() -> None:
    found = figures(completion("a", "good accuracy", "x", help=1.0), completion("a", "bad accuracy", "x", help=0.25))
    assert found["gap_accuracy_help"] == 0.75
    assert "gap_help" not in found


def test_figures_do_not_depend_on_the_order_of_the_completions() -> None:
    written = [
        completion(f"p{i}", ask, "x " * i, help=i * (2.0 if ask == "good" else 0.3))
        for i in range(30)
        for ask in ("good", "bad")
    ]
    assert figures(*written) == figures(*reversed(written))


def test_an_improvement_is_measured_against_a_fresh_draw_and_not_against_the_first_answer() -> None:
    first = [completion("a", "good", "x", help=0.2), completion("b", "good", "x", help=0.4)]
    second = [completion("a", "refined 2", "x", help=0.7), completion("b", "refined 2", "x", help=0.7)]
    fresh = [completion("a", "fresh 2", "x", help=0.8), completion("b", "fresh 2", "x", help=0.8)]
    found = figures(*first, *second, *fresh)
    assert found["improvement_2_help"] == pytest.approx(-0.1)
    assert found["regression_2_help"] == pytest.approx(0.5), "what would have passed for an improvement"


def test_copies_are_counted_from_the_first_answer_of_the_same_prompt() -> None:
    first = [completion("a", "good", "the cat sat on the mat"), completion("b", "good", "a dog")]
    rows = with_copies(
        first,
        [
            completion("a", "refined 2", "the cat sat on a chair"),
            completion("b", "refined 2", "the cat sat on the mat"),
        ],
    )
    assert [row.values["copied"] for row in rows] == [0.5, 0.0]


def test_distinct_is_counted_once_per_prompt() -> None:
    rows = with_samples(
        [
            completion("a", "good", "one two three", 0),
            completion("a", "good", "one two four", 1),
            completion("b", "good", "one two", 0),
        ]
    )
    assert [row.values.get("distinct") for row in rows] == [0.75, None, None]


@pytest.mark.parametrize("name", ["tokens", "words", "repetition", "ended", "empty", "distinct"])
def test_gaps_of_length_and_the_like_are_not_headlines(name: str) -> None:
    assert headline({f"gap_{name}": 0.5, f"{name}_good": 1.0}) == []
    assert headline({f"gap_{name}": 0.5, "gap_rouge": 0.1, f"gap_{name}_low": 0.0}) == ["gap_rouge"]


def test_the_headline_is_the_gap_of_the_last_scorer_or_else_of_rouge() -> None:
    gaps = {f"gap_{name}{end}": 0.5 for name in ("rouge1", "rouge", "help", "harm") for end in ("", "_low", "_high")}
    assert headline({**gaps, "harm_good": 1.0, "improvement_2_harm": 1.0}) == ["gap_harm"]
    assert headline({name: gap for name, gap in gaps.items() if "rouge" in name}) == ["gap_rouge"]
    assert headline({"help_good": 1.0}) == []


# Through Lightning


def length(one: Completion) -> dict[str, float]:
    """A scorer: longer is better."""
    return {"length": float(len(one.text))}


def remark(one: Completion) -> str:
    """A critic."""
    return f"it has {len(one.text)} characters"


SAMPLED = Sampling(max_new_tokens=6, temperature=1.0)


def test_completions_are_written_during_fit_every_n_validations(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_validation_prompts=3)
    model = tiny(sampling=SAMPLED, generate_every_n_validations=2, scorers=["test_figures:length"])
    writer = CompletionWriter()
    run = trainer(
        tmp_path,
        writer,
        max_steps=6,
        val_check_interval=data_interval(data, 1),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=1,
    )
    run.fit(model, datamodule=data)
    files = sorted(path.name for path in (tmp_path / "completions").iterdir())
    assert files == ["step=2.jsonl", "step=4.jsonl", "step=6.jsonl"]
    written = list(read_jsonl(tmp_path / "completions" / "step=4.jsonl", Completion))
    assert len(written) == 3 * 2 and len({one.id for one in written}) == 6
    off = {"max_seconds", "guidance", "guidance_cutoff", "guidance_from"}
    assert all(
        one.sampling == {name: value for name, value in asdict(SAMPLED).items() if name not in off} for one in written
    ), "what is not set is not said"
    assert all(one.scores == {"length": float(len(one.text))} for one in written)
    assert {"val/length_good", "val/gap_length", "val/gap_length_low", "val/nll"} <= set(run.callback_metrics)
    assert (tmp_path / "samples.html").read_text().count("step 6") >= 1


@pytest.mark.parametrize(
    ("settings", "named"), [({"scorers": ["nope"]}, "nope"), ({"critic": "test_figures:nope"}, "nope")]
)
def test_a_missing_scorer_or_critic_ends_fit_before_its_first_step(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=named):
        trainer(tmp_path, max_steps=1).fit(tiny(**settings), datamodule=held_out_data(tmp_path))


def data_interval(data: Any, steps: int) -> int:
    """Micro-batches between validations, for a validation every so many steps of one process."""
    data.setup("fit")
    return steps * data.plan.accumulate(1)


def test_writing_during_fit_does_not_change_the_training_losses(tmp_path: Path) -> None:
    losses = []
    for number, every in enumerate((0, 1)):
        data = held_out_data(tmp_path, max_validation_prompts=2)
        settings = {"max_steps": 4, "val_check_interval": data_interval(data, 1), "check_val_every_n_epoch": None}
        losses.append(
            fitted(
                data, tiny(sampling=SAMPLED, generate_every_n_validations=every), tmp_path / str(number), **settings
            ).losses
        )
    assert losses[0] == losses[1]


def test_early_stopping_and_best_checkpoint_work_on_the_control_gap(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_validation_prompts=4)
    best = ModelCheckpoint(tmp_path / "best", monitor="val/gap_length", mode="max", filename="{step}")
    stop = EarlyStopping("val/gap_length", mode="max", min_delta=1e9, patience=2)
    run = trainer(
        tmp_path,
        stop,
        best,
        max_steps=9,
        val_check_interval=data_interval(data, 1),
        check_val_every_n_epoch=None,
        enable_checkpointing=True,
    )
    run.fit(tiny(sampling=SAMPLED, generate_every_n_validations=1, scorers=["test_figures:length"]), datamodule=data)
    assert run.global_step == 3, "one that counts, and two without a gain of a thousand million"
    assert best.best_model_score is not None and len(list((tmp_path / "best").glob("*.ckpt"))) == 1


@pytest.mark.parametrize(("of", "spoken"), [("coh", "default"), ("coh_critique", "critique")])
def test_a_refinement_prompt_has_the_ids_of_training_before_a_second_output(
    of: str, spoken: str, tmp_path: Path
) -> None:
    data = data_of(
        usable(EVERY_KIND, method(of)), tmp_path, method=method(of), wording=wording(spoken), max_unusable_fraction=1.0
    )
    data.setup("fit")
    seen = 0
    for one in data.splits["train"]:
        for chain in data.planner.chains(one):
            if len(chain) != 2 or (chain[0].kind, chain[1].kind) not in (("bad", "good"), ("bad", "revision")):
                continue
            critique = next((c.critique for c in one.record.candidates if c.text == chain[0].text), None)
            if of == "coh_critique" and critique is None:
                continue
            tokens = data.prompter.tokens.chain(one.prompt, chain)
            request = data.prompter.refinement(one.record, [chain[0].text], [critique], "refined 2")
            assert request is not None
            assert request.prompt_ids.tolist() == tokens.ids[: tokens.spans[1].start].tolist()
            assert request.marker == chain[1].marker
            seen += 1
    assert seen > 0


def test_without_revisions_a_critique_is_before_its_answer(tmp_path: Path) -> None:
    data = data_of(
        usable(EVERY_KIND, method("coh_critique")),
        tmp_path,
        method=method("coh_critique", orders=("each",)),
        wording=wording("critique"),
        max_unusable_fraction=1.0,
    )
    data.setup("fit")
    one = data.splits["train"][0]
    asks = data.prompter.conditions(one.record)
    request = data.prompter.refinement(one.record, ["Answer 1.", "Answer 2."], ["it is too short", None], "refined 3")
    assert request is not None and request.marker == asks["good"]
    told = data.prompter.tokens.encoder.decode(request.prompt_ids)
    places = [
        told.find(text)
        for text in (
            data.wording.criticized(one.record, "it is too short"),
            "Answer 1.",
            asks["bad"],
            "Answer 2.",
            asks["good"],
        )
    ]
    assert -1 not in places and places == sorted(places)


def test_every_round_of_refinement_has_its_fresh_draw(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_test_prompts=3)
    model = tiny(sampling=SAMPLED, refine=2, scorers=["test_figures:length"], critic="test_figures:remark")
    run = trainer(tmp_path, CompletionWriter(), max_steps=1)
    run.fit(model, datamodule=data)
    metrics = merged(run.test(model, datamodule=data, verbose=False))
    written = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    by_ask = {
        ask: [one for one in written if one.ask == ask]
        for ask in ("good", "bad", "refined 2", "fresh 2", "refined 3", "fresh 3")
    }
    assert {ask: len(ones) for ask, ones in by_ask.items()} == dict.fromkeys(by_ask, 3)
    assert sum(map(len, by_ask.values())) == len(written)
    for one in by_ask["refined 3"]:
        before = [next(o for o in by_ask[ask] if o.prompt_id == one.prompt_id).text for ask in ("good", "refined 2")]
        assert all(text in one.prompt for text in before), "it sees both of its answers"
    for one in by_ask["fresh 2"]:
        first = next(o for o in by_ask["good"] if o.prompt_id == one.prompt_id)
        assert one.prompt == first.prompt and one.text != first.text, "the same prompt, drawn anew"
    assert {
        "test/improvement_2_length",
        "test/improvement_3_length_low",
        "test/regression_2_length",
        "test/copied_refined_2",
    } <= set(metrics)


def test_a_second_answer_loses_the_leading_spaces_of_its_place_in_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = held_out_data(tmp_path)
    data.setup("test")
    one = data.splits["test"][0]
    monkeypatch.setattr(data.prompter.tokens, "output_lead", lambda marker, place=0: "ab cd"[: 2 * place])
    third = data.prompter.refinement(one.record, ["x", "y"], [None, None], "refined 3")
    assert third is not None
    written = Written(
        third, 0, np.array(data.prompter.tokens.encoder.encode_texts(["ab cd"])[0], dtype=np.int32), "end"
    )
    assert data.prompter.completion(written, SAMPLED, system="s").text == "d"


def test_special_tokens_are_not_part_of_the_text(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    data.setup("test")
    request = data.requests("test")[0]
    before, after = (data.prompter.tokens.encoder.encode_texts([text])[0] for text in ("An apple", " pie"))
    ids = np.array([*before, data.tokenizer.all_special_ids[0], *after], dtype=np.int32)
    assert data.prompter.completion(Written(request, 0, ids, "end"), SAMPLED, system="s").text == "An apple pie"


def test_of_several_samples_of_a_prompt_the_first_is_refined(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_test_prompts=3)
    model = tiny(sampling=replace(SAMPLED, samples=2), refine=1)
    trainer(tmp_path, CompletionWriter()).test(model, datamodule=data, verbose=False)
    written = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    good = {one.id: one.text for one in written if one.ask == "good"}
    assert len(good) == 3 * 2
    for ask in ("refined 2", "fresh 2"):
        assert [one.id for one in written if one.ask == ask] == [
            f"{prompt}:{ask}:0" for prompt in dict.fromkeys(id.split(":")[0] for id in good)
        ]
    for one in written:
        if one.ask == "refined 2":
            assert good[f"{one.prompt_id}:good:0"] in one.prompt and good[f"{one.prompt_id}:good:1"] not in one.prompt


def test_a_second_answer_without_room_is_left_out_with_its_control(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, max_prompt_tokens=60, max_chain_tokens=100, row_tokens=200)
    data.setup("test")
    one = data.splits["test"][0]
    assert data.prompter.refinement(one.record, ["x" * 200], [None], "refined 2") is None


@pytest.mark.parametrize("setting", [{"generate_every_n_validations": -1}, {"refine": -1}])
def test_negative_settings_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"must be at least 0"):
        tiny(**setting)


# A time budget


def test_a_round_keeps_to_max_seconds_and_reports_what_was_left_out(tmp_path: Path) -> None:
    seen = {}
    for seconds in (None, 1e6, 1e-9):
        data = held_out_data(tmp_path, max_validation_prompts=3)
        run = trainer(
            tmp_path / str(seconds),
            CompletionWriter(),
            max_steps=1,
            val_check_interval=data_interval(data, 1),
            check_val_every_n_epoch=None,
        )
        model = tiny(sampling=replace(SAMPLED, max_seconds=seconds), generate_every_n_validations=1, refine=1)
        torch.manual_seed(0)
        with (
            pytest.warns(
                UserWarning, match=r"6 completions were left out, because sampling.max_seconds = 1e-09 was over"
            )
            if seconds == 1e-9
            else nullcontext()
        ):
            run.fit(model, datamodule=data)
        file = next((tmp_path / str(seconds) / "completions").glob("*"), None) if seconds != 1e-9 else None
        seen[seconds] = [(one.id, one.text) for one in read_jsonl(file, Completion)] if file else []
        assert run.callback_metrics.get("val/left_out") == {None: None, 1e6: 0.0, 1e-9: 6.0}[seconds]
    assert seen[None] == seen[1e6] and len(seen[None]) == 3 * 4 and seen[1e-9] == []


def test_predict_and_a_study_report_what_was_left_out(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    data.setup("predict")
    model = tiny(sampling=replace(SAMPLED, max_seconds=1e-9))
    run = trainer(tmp_path)
    number = 2 * len(data.splits["test"])
    with pytest.warns(
        UserWarning, match=rf"{number} completions were left out, because sampling.max_seconds = 1e-09 was over"
    ):
        assert run.predict(model, datamodule=data) is not None
    with pytest.warns(UserWarning, match=f"{number} completions were left out"):
        assert model.write_share("test") == []


# Pseudo-dialogues


def conversations(number: int) -> list[dict[str, Any]]:
    """Dialogues of one to three turns of the user's, the last with two answers to compare."""
    rows = []
    for i in range(number):
        said = [f"Question {i}, part {part}?" for part in range(1 + i % 3)]
        turns = [
            turn
            for text in said
            for turn in ({"role": "user", "content": text}, {"role": "assistant", "content": "Their answer."})
        ][:-1]
        rows.append(
            {"id": str(i), "prompt": turns, "completions": [{"text": "Yes.", "rank": 1}, {"text": "No.", "rank": 2}]}
        )
    return rows


def dialogue_data(tmp_path: Path) -> Any:
    return data_of(conversations(40), tmp_path, train_only=False, validation_share=0.1, test_share=0.3)


def test_pseudo_dialogues_keep_the_users_turns_and_write_each_answer_after_the_models_own(tmp_path: Path) -> None:
    data = dialogue_data(tmp_path)
    model = tiny(sampling=SAMPLED, dialogues=True)
    trainer(tmp_path, CompletionWriter()).predict(model, datamodule=data)
    written = {one.id: one for one in read_jsonl(tmp_path / "completions.jsonl", Completion)}
    held_out = data.splits["test"]
    assert len(written) == sum(2 * len([turn for turn in one.record.prompt if turn.role == "user"]) for one in held_out)
    assert {len(one.record.prompt) for one in held_out} == {1, 3, 5}
    longest = next(one for one in held_out if len(one.record.prompt) == 5)
    for ask, marker in data.prompter.conditions(longest.record).items():
        turns: list[Turn] = []
        for number, turn in enumerate(turn for turn in longest.record.prompt if turn.role == "user"):
            one = written[f"{longest.record.id}#{number + 1}:{ask}:0"]
            turns.append(turn)
            ids = data.prompter.tokens.inference_prompt(data.prompter.tokens.cut_prompt(turns), marker)
            assert (one.prompt, one.shown, one.human) == (
                data.prompter.tokens.encoder.decode(ids),
                read_prompt(turns),
                turn.text,
            )
            assert [(message["role"], message["content"]) for message in one.messages] == [
                (said.role, said.text) for said in turns
            ]
            assert "Their answer." not in one.prompt
            turns.append(Turn("assistant", (Part(one.text, "front"),)))
    assert len({one.text for one in written.values()}) > len(held_out)


def test_a_dialogue_with_an_empty_or_overlong_turn_of_the_user_has_no_replies(tmp_path: Path) -> None:
    data = dialogue_data(tmp_path)
    data.setup("predict")
    one = next(one for one in data.splits["test"] if len(one.record.prompt) == 3)
    assert data.prompter.replies(one.record) == 2

    def with_first(text: str) -> Any:
        return replace(one.record, prompt=(Turn("user", (Part(text, "never"),)), *one.record.prompt[1:]))

    replies = data.prompter.replies
    assert replies(with_first(" \n")) == replies(with_first("word " * 300)) == 0


def test_two_systems_pseudo_dialogues_become_a_study(tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(files))
        last = (
            [HumanEvalExport(str(files[0]), raters=1, overlap=3, attributes=("helpful", "harmless"))] if files else []
        )
        trainer(tmp_path / name, CompletionWriter(), *last).predict(
            tiny(sampling=SAMPLED, dialogues=True), datamodule=dialogue_data(tmp_path)
        )
        files.append(tmp_path / name / "completions.jsonl")
    items = [json.loads(line) for line in (tmp_path / "other" / "human_eval" / "items.jsonl").read_text().splitlines()]
    long = next(item for item in items if "3 user turns" in item["prompt"])
    spoken = [[line for line in text.split("\n\n") if line.startswith("User: ")] for text in long["texts"]]
    assert spoken[0] == spoken[1] and len(spoken[0]) == 3
    assert long["texts"][0] != long["texts"][1]


@pytest.mark.parametrize(
    "setting", [{"prompts_to": "a"}, {"completions_from": "a"}, {"sampling": Sampling(samples=2, temperature=1.0)}]
)
def test_dialogues_refuse_several_samples_and_completions_made_elsewhere(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"model.generation.dialogues"):
        tiny(dialogues=True, **setting)


@pytest.mark.parametrize(
    ("roles", "before"),
    [
        ("u", ["u"]),
        ("suau", ["su", "u"]),
        ("uaau", ["u", "u"]),
        ("uuau", ["uu", "u"]),
        ("auau", ["au", "u"]),
        ("uauau", ["u", "u", "u"]),
    ],
)
def test_consecutive_assistant_turns_are_one_answer(roles: str, before: list[str]) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    pieces = turns_before_answers([Turn(names[role], (Part("x"),)) for role in roles])  # type: ignore[arg-type]
    assert ["".join(turn.role[0] for turn in piece) for piece in pieces] == before


# Completions made elsewhere


def test_completions_of_exported_prompts_equal_those_written_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, back = held_out_data(tmp_path), tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    here = tiny(sampling=SAMPLED, scorers=["test_figures:length"])
    run = trainer(tmp_path, CompletionWriter(), max_steps=1)
    run.fit(here, datamodule=data)
    run.save_checkpoint(tmp_path / "one.ckpt")
    run.predict(here, datamodule=data)
    own = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    (tmp_path / "completions.jsonl").unlink()

    asking = tiny(sampling=SAMPLED, prompts_to=str(out))
    trainer(tmp_path, CompletionWriter()).predict(
        asking, datamodule=data, ckpt_path=str(tmp_path / "one.ckpt"), weights_only=True
    )
    assert not hasattr(asking, "lm"), "no model was needed"
    assert not (tmp_path / "completions.jsonl").exists()
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(line["id"], line["prompt"]) for line in lines} == {(one.id, one.prompt) for one in own}
    assert {line["body"]["model"] for line in lines} == {tmp_path.name}, (
        "a model that was trained here goes by the name of its run"
    )

    batch = tmp_path / "prompts.batch.jsonl"
    trainer(tmp_path).predict(tiny(sampling=SAMPLED, prompts_to=str(batch)), datamodule=data)
    assert f"calls the model '{tmp_path.name}'" in capsys.readouterr().out
    assert {json.dumps(json.loads(line)["body"]) for line in batch.read_text().splitlines()} == {
        json.dumps(line["body"]) for line in lines
    }

    texts = {one.id: one for one in own}
    answers = [
        {
            "id": line["id"],
            "prompt_sha": line["prompt_sha"],
            "completion": texts[line["id"]].text,
            "finish_reason": {"end": "stop"}.get(texts[line["id"]].stop, "length"),
        }
        for line in reversed(lines)
    ]
    back.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    taking = tiny(sampling=SAMPLED, completions_from=str(back), scorers=["test_figures:length"])
    trainer(tmp_path, CompletionWriter()).predict(taking, datamodule=data)
    again = list(read_jsonl(tmp_path / "completions.jsonl", Completion))
    assert [(one.id, one.text, one.prompt, one.scores) for one in again] == [
        (one.id, one.text, one.prompt, one.scores) for one in own
    ]

    back.write_text("".join(json.dumps(answer) + "\n" for answer in answers[1:]))
    taking = tiny(sampling=SAMPLED, completions_from=str(back))
    with pytest.raises(InputError, match=answers[0]["id"]):
        trainer(tmp_path).predict(taking, datamodule=data)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, None),
        ({"name_or_path": "gpt2"}, "gpt2"),
        ({"name_or_path": "runs/a/last.ckpt"}, None),
        ({"name_or_path": "gpt2", "served_model": "mine"}, "mine"),
        ({"served_model": "mine"}, "mine"),
    ],
)
def test_requests_name_the_model_as_the_server_calls_it(
    tmp_path: Path, settings: dict[str, Any], name: str | None
) -> None:
    module = CoHModule(**grouped(settings))
    module.writer.begin(trainer(tmp_path), None, None)  # type: ignore[arg-type]
    assert module.writer.served_model(module.pretrained_name) == (name or tmp_path.name)
    module.trained_with = {}
    assert module.writer.served_model(module.pretrained_name) == settings.get("served_model", tmp_path.name), (
        "a trained model is not the one that training started from"
    )


def test_prompts_for_a_checkpoint_that_was_trained_on_other_ones_are_refused(tmp_path: Path) -> None:
    run, model = trainer(tmp_path, max_steps=1), tiny()
    run.fit(model, datamodule=held_out_data(tmp_path))
    run.save_checkpoint(tmp_path / "one.ckpt")
    asking = CoHModule(str(tmp_path / "one.ckpt"), generation=Generation(prompts_to=str(tmp_path / "p.jsonl")))
    with pytest.raises(
        InputError, match=r"data\.wording\.name is 'paper', but the checkpoint was trained with 'default'"
    ):
        trainer(tmp_path).predict(asking, datamodule=held_out_data(tmp_path, wording=wording("paper")))
    assert not (tmp_path / "p.jsonl").exists()


def test_prompts_to_and_completions_from_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"prompts go out first"):
        tiny(prompts_to="a", completions_from="b")


# A study at the end


def test_a_study_of_before_and_after_training_is_made_at_the_end_of_fit(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    export = HumanEvalExport("before", raters=2, overlap=2)
    trainer(tmp_path, export, max_steps=2).fit(tiny(sampling=SAMPLED), datamodule=data)
    assert (tmp_path / "human_eval" / "sheets" / "rater-1.csv").is_file()
    key = json.loads((tmp_path / "human_eval" / "key.json").read_text())
    assert sorted(key["systems"]) == ["after", "before"]


def test_a_study_of_good_against_bad_must_be_requested(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    run = trainer(tmp_path, CompletionWriter(), HumanEvalExport("bad", raters=1, overlap=0), max_steps=1)
    model = tiny(sampling=SAMPLED)
    run.test(model, datamodule=data, verbose=False)
    assert (tmp_path / "human_eval" / "rate.html").is_file()


def test_a_study_needs_something_to_compare_with() -> None:
    with pytest.raises(InputError, match=r"HumanEvalExport.against is 'nothing.jsonl', and there is no such file"):
        HumanEvalExport("nothing.jsonl")


def test_a_study_needs_the_completions_first(tmp_path: Path) -> None:
    run = trainer(tmp_path, HumanEvalExport("references"))
    with pytest.raises(InputError, match=r"put a CompletionWriter before it"):
        run.test(tiny(sampling=SAMPLED), datamodule=held_out_data(tmp_path), verbose=False)


def test_text_after_the_next_feedback_sentence_is_cut(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    data.setup("test")
    pattern = data.prompter.next_marker(data.splits["test"][0].record)

    def kept(text: str) -> str:
        found = pattern.search(text)
        return text[: found.start()] if found else text

    assert kept("An apple.\n\nAn unhelpful answer:\nA stone.") == "An apple."
    assert kept("An apple. A helpful answer: is what I give.") == "An apple."
    assert kept("It is a helpful answer: yes") == "It is a helpful answer: yes", "other letters are other words"
    assert kept("A helpful answer:") == ""


def test_generation_stops_after_the_next_feedback_sentence_and_only_tokens_of_the_text_count(tmp_path: Path) -> None:
    data = held_out_data(tmp_path)
    data.setup("test")
    request, encode = data.requests("test")[0], data.prompter.tokens.encoder.encode_texts
    said = "An apple.\n\nAn unhelpful answer:"
    assert not data.prompter.should_stop(request, encode([said])[0]), "it may be the beginning of other words"
    beyond = encode([said + " A"])[0]
    assert data.prompter.should_stop(request, beyond)
    one = data.prompter.completion(Written(request, 0, beyond, "length"), SAMPLED, system="m")
    assert (one.text, one.stop, one.completion_tokens) == ("An apple.", "marker", len(encode(["An apple."])[0]))

    whole = data.prompter.completion(Written(request, 0, encode(["An apple."])[0], "end"), SAMPLED, system="m")
    assert (whole.text, whole.stop, whole.completion_tokens) == ("An apple.", "end", one.completion_tokens + 1)


def test_a_one_letter_marker_ends_a_text_only_when_framed_as_in_training(tmp_path: Path) -> None:
    data = held_out_data(tmp_path, wording=wording("binary"))
    data.setup("test")
    pattern = data.prompter.next_marker(data.splits["test"][0].record)
    assert pattern.search("A stone and B trees.\n\nA new line") is None
    found = pattern.search("A stone.\n\nA\nAn apple")
    assert found is not None and found.start() == len("A stone.")
