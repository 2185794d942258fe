"""Completions made elsewhere come back as if written here, and a line that may belong to another prompt is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.offline_inference import read_completions, write_prompts

SAMPLING = {
    "max_new_tokens": 8,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 5,
    "samples": 2,
    "batch_size": 16,
    "seed": 3,
}


def blank(number: int = 7, sample: int = 0, ask: str = "good", **sampling: Any) -> PendingCompletion:
    marker = f"A {ask} answer:\n"
    one = Completion(
        id=f"{number}:{ask}:{sample}",
        prompt_id=str(number),
        system="run",
        prompt=f"<s>Name {number} fruits.\n\n{marker}",
        prompt_sha=f"hash of {number}",
        ask=ask,
        marker=marker,
        text="",
        sampling=SAMPLING | sampling,
        seed=3,
        prompt_tokens=4,
        reference="Apple",
        shown=f"Name {number} fruits.",
    )
    return PendingCompletion(one, (1, 20 + number, 30, 40), lead=" ")


BLANKS = [blank(7), blank(7, 1), blank(8, ask="bad")]


def count(text: str) -> int:
    return len(text.split())


def written(path: Path, *lines: object) -> Path:
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8"
    )
    return path


def plain(one: PendingCompletion, text: str = " Apple, pear", **more: Any) -> dict[str, Any]:
    return {
        "id": one.completion.id,
        "prompt_sha": one.completion.prompt_sha,
        "completion": text,
        "finish_reason": "stop",
        **more,
    }


def served(
    one: PendingCompletion, text: str = " Apple, pear", *, chat: bool = False, usage: Any = None, **choice: Any
) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    body = {
        "object": "text_completion",
        "choices": [{"index": 0, "finish_reason": "stop", **said, **choice}],
        "usage": usage,
    }
    return {
        "id": "batch_req_1",
        "custom_id": one.custom_id,
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def read(path: Path, blanks: list[PendingCompletion] = BLANKS, **more: Any) -> list[Completion]:
    return read_completions(path, blanks, count=count, **more)


def test_a_prompts_line_has_everything_needed_to_complete_it(tmp_path: Path) -> None:
    assert write_prompts(tmp_path / "p.jsonl", BLANKS, stop_token_ids=[2, 5], stop=["A good answer:"], model="m") == 3
    first, second, _ = map(json.loads, (tmp_path / "p.jsonl").read_text().splitlines())
    one = BLANKS[0]
    seed = first["body"].pop("seed")
    assert first == {
        "id": "7:good:0", "custom_id": one.custom_id, "prompt_id": "7", "prompt_sha": "hash of 7",
        "sha": one.sha, "ask": "good", "marker": "A good answer:\n",
        "prompt": "<s>Name 7 fruits.\n\nA good answer:\n", "prompt_ids": [1, 27, 30, 40],
        "stop": ["A good answer:"], "stop_token_ids": [2, 5],
        "sampling": {name: value for name, value in SAMPLING.items() if name != "batch_size"},
        "body": {"model": "m", "prompt": [1, 27, 30, 40], "max_tokens": 8, "temperature": 0.7,
                 "top_p": 0.9, "top_k": 5, "n": 1,
                 "stop": ["A good answer:"], "stop_token_ids": [2, 5]},
    }  # fmt: skip
    assert 0 <= seed < 2**31 and seed != second["body"]["seed"]  # or both samples would be one text


def test_a_greedy_body_has_no_seed_and_no_vllm_settings_without_effect(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", [blank(temperature=0.0, top_k=0)], stop_token_ids=[])
    body = json.loads((tmp_path / "p.jsonl").read_text())["body"]
    assert body == {"prompt": [1, 27, 30, 40], "max_tokens": 8, "temperature": 0.0, "n": 1}


def test_a_batch_file_has_only_the_keys_of_a_batch_service(tmp_path: Path) -> None:
    assert write_prompts(tmp_path / "b.batch.jsonl", BLANKS, stop_token_ids=[2], model="m") == 3
    lines = list(map(json.loads, (tmp_path / "b.batch.jsonl").read_text().splitlines()))
    assert [set(line) for line in lines] == [{"custom_id", "method", "url", "body"}] * 3
    assert lines[0]["method"] == "POST" and lines[0]["url"] == "/v1/completions" and lines[0]["body"]["model"] == "m"
    assert all(line["body"]["model"] == "m" for line in lines), "a batch service refuses a request without a model"
    assert len({line["custom_id"] for line in lines}) == 3 and all(len(line["custom_id"]) <= 64 for line in lines)


def test_plain_lines_come_back_as_completions_in_the_order_asked(tmp_path: Path) -> None:
    file = written(tmp_path / "c.jsonl", *[plain(one, f" text {n}") for n, one in enumerate(BLANKS)][::-1])
    got = read(file, system="vllm")
    sampling = {**SAMPLING, "backend": "elsewhere"}
    expected = [
        replace(one.completion, text=f"text {n}", stop="end", completion_tokens=3, system="vllm", sampling=sampling)
        for n, one in enumerate(BLANKS)
    ]
    assert got == expected  # "text", its number, and the end token


def test_a_prompts_line_with_a_completion_added_is_a_completions_line(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p.jsonl", BLANKS, stop_token_ids=[2], stop=["A good answer:"], model="m")
    lines = [
        json.loads(line) | {"completion": "Apple", "latency": 0.1}
        for line in (tmp_path / "p.jsonl").read_text().splitlines()
    ]
    with pytest.warns(UserWarning, match="3 of 3 completions don't say why they ended"):
        got = read(written(tmp_path / "c.jsonl", *lines))
    assert [one.stop for one in got] == [""] * 3
    for key, changed in {
        "prompt": "x",
        "prompt_ids": [1],
        "sha": "0",
        "marker": "",
        "ask": "bad",
        "sampling": {},
        "custom_id": "coh-0",
        "prompt_id": "9",
    }.items():
        with pytest.raises(
            InputError,
            match=rf"c.jsonl:1: the {key} of '7:good:0' is .*, not .*, so it is for another prompt",
        ):
            read(written(tmp_path / "c.jsonl", lines[0] | {key: changed}, *lines[1:]))


@pytest.mark.parametrize("chat", [False, True])
def test_the_output_of_a_batch_comes_back_as_completions(tmp_path: Path, chat: bool) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = read(written(tmp_path / "b.jsonl", *(served(one, chat=chat, usage=usage) for one in BLANKS)))
    assert [(one.id, one.text, one.stop, one.completion_tokens) for one in got] == [
        (one.completion.id, "Apple, pear", "end", 6) for one in BLANKS
    ]


@pytest.mark.parametrize(
    ("reason", "stop"),
    [("stop", "end"), ("length", "length"), ("eos_token", "end"), ("max_tokens", "length"), (None, "")],
)
@pytest.mark.filterwarnings("ignore:.*don't say why")
def test_finish_reasons_become_our_stop_values(tmp_path: Path, reason: str | None, stop: str) -> None:
    for line in (served(BLANKS[0], finish_reason=reason), plain(BLANKS[0], finish_reason=reason)):
        [got] = read(written(tmp_path / "b.jsonl", line), BLANKS[:1])
        assert got.stop == stop and got.completion_tokens == 2 + (stop == "end")


def test_a_text_that_ended_for_another_reason_is_refused(tmp_path: Path) -> None:
    for reason in ("content_filter", "abort", 7, ["stop"]):
        with pytest.raises(InputError, match=r"b.jsonl:1: finish_reason is .*, not one of stop"):
            read(written(tmp_path / "b.jsonl", served(BLANKS[0], finish_reason=reason)), BLANKS[:1])


def test_a_text_is_cut_at_the_first_marker_and_its_tokens_are_counted_again(tmp_path: Path) -> None:
    text = " Apple, pear\n\nA bad answer:\nStone A good answer:\nx"
    usage = {"prompt_tokens": 4, "completion_tokens": 30}
    [got] = read(
        written(tmp_path / "b.jsonl", served(BLANKS[0], text, usage=usage)),
        BLANKS[:1],
        stop=["A good answer:", "A bad answer:", ""],
    )
    assert (got.text, got.stop, got.completion_tokens) == ("Apple, pear", "marker", 2)


def test_a_server_that_stopped_at_a_marker_gives_stop_marker(tmp_path: Path) -> None:
    line = served(BLANKS[0], " Apple\n\n", stop_reason="A bad answer:", usage={"completion_tokens": 5})
    [got] = read(written(tmp_path / "b.jsonl", line), BLANKS[:1])
    assert (got.text, got.stop, got.completion_tokens) == ("Apple", "marker", 5)
    [got] = read(
        written(tmp_path / "b.jsonl", served(BLANKS[0], " Apple\n\n", stop_reason=2)), BLANKS[:1]
    )  # a stop token, by its id
    assert (got.text, got.stop) == ("Apple\n\n", "end")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([plain(BLANKS[0])], r"c.jsonl: 2 of 3 completions are missing \('7:good:1', '8:bad:0'\)"),
        (
            [*map(plain, BLANKS), plain(BLANKS[1], "x")],
            "c.jsonl:4: the completion '7:good:1' is given again, first at .*c.jsonl:2",
        ),
        (
            [*map(plain, BLANKS), plain(blank(9))],
            "c.jsonl:4: the completion str '9:good:0' was not requested; did you mean '7:good:0'",
        ),
        (
            [plain(BLANKS[0], prompt_sha="hash of 8")],
            "c.jsonl:1: the prompt_sha of '7:good:0' is str 'hash of 8', not str 'hash of 7'",
        ),
        (
            [{"id": "7:good:0", "completion": "x"}],
            "c.jsonl:1: the line of '7:good:0' has no 'prompt_sha'; copy it from the prompt's line",
        ),
        ([{"prompt_sha": "hash of 7", "completion": "x"}], "c.jsonl:1: the key 'id' is missing"),
        ([{"id": ["7"], "prompt_sha": "", "completion": "x"}], "c.jsonl:1: the completion .* was not requested"),
        (
            [{"id": "7:good:0", "prompt_sha": "hash of 7"}],
            "c.jsonl:1: the line of '7:good:0' has neither 'completion' nor 'text'",
        ),
        ([plain(BLANKS[0]) | {"text": "x"}], "c.jsonl:1: the line of '7:good:0' has both 'completion' and 'text'"),
        ([plain(BLANKS[0]) | {"completion": None}], "c.jsonl:1: completion is NoneType None; it must be text"),
        (
            [plain(BLANKS[0], completion_tokens=1.5)],
            "c.jsonl:1: completion_tokens is float 1.5; it must be a number of tokens",
        ),
        ([plain(BLANKS[0], "a\ud800")], r"c.jsonl:1: completion has the lone surrogate U\+D800"),
        (["{"], "c.jsonl:1: broken JSON"),
        (["3"], "c.jsonl:1: the line is not a JSON object"),
        (
            [{"custom_id": "coh-12", "response": {}}],
            "c.jsonl:1: .* was not requested; its prompt or its settings have changed since the batch was written",
        ),
        ([{"id": "x", "response": {}}], "c.jsonl:1: the key 'custom_id' is missing"),
        (
            [served(BLANKS[0]) | {"error": {"message": "out of memory"}}],
            "c.jsonl:1: the server failed at '7:good:0' .*out of memory",
        ),
        (
            [{"custom_id": BLANKS[0].custom_id, "response": {"status_code": 400, "body": {"error": "bad"}}}],
            r"the server failed at '7:good:0' \(status 400",
        ),
        (
            [{"custom_id": BLANKS[0].custom_id, "response": {"body": {"choices": []}}}],
            "c.jsonl:1: there are 0 choices for '7:good:0'",
        ),
        (
            [served(BLANKS[0], chat=True, message={"content": None})],
            "c.jsonl:1: message.content is NoneType None; it must be text",
        ),
    ],
)
def test_an_unusable_line_is_refused_by_file_and_line(tmp_path: Path, lines: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(written(tmp_path / "c.jsonl", *lines))


def test_many_bad_lines_are_all_counted_and_the_first_five_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(written(tmp_path / "c.jsonl", *[plain(blank(number)) for number in range(20, 32)], "{"))
    said = str(caught.value).splitlines()
    assert (
        len(said) == 6 and said[4].startswith(f"{tmp_path}/c.jsonl:5:") and said[5] == "(and 8 more lines like these)"
    )


def test_another_prompt_or_setting_gives_another_custom_id() -> None:
    one = BLANKS[0]
    others = [
        replace(one, prompt_ids=(1, 27, 30, 41)),
        replace(one, completion=replace(one.completion, prompt="x")),
        blank(temperature=0.6),
        blank(sample=1),
    ]
    assert len({other.custom_id for other in (one, *others)}) == 5
    assert blank(batch_size=1).sha == one.sha  # how it was computed changes nothing


def test_two_blanks_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have the id '7:good:0'; ids must differ"):
        write_prompts(tmp_path / "p.jsonl", [BLANKS[0], blank(temperature=0.0)], stop_token_ids=[])


def test_a_server_that_tokenizes_differently_gives_a_warning(tmp_path: Path) -> None:
    lines = [
        served(one, usage={"prompt_tokens": 5 if one is BLANKS[1] else 4, "completion_tokens": 3}) for one in BLANKS
    ]
    with pytest.warns(
        UserWarning,
        match=r"tokenized 1 of 3 prompts differently \('7:good:1' was read as 5 tokens, not 4\)",
    ):
        read(written(tmp_path / "b.jsonl", *lines))


def test_offline_inference_imports_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'lightning', 'numpy'}"
    code = f"import sys, coh_lightning.generation.offline_inference; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("form", ["plain", "batch"])
def test_prompts_of_a_data_module_completed_elsewhere_give_the_completions_written_here(
    tmp_path: Path, form: str
) -> None:
    """A server that runs the same model on `prompt_ids`, and sends back only what a server sends."""
    import numpy as np

    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.request import Request, Written
    from coh_lightning.generation.sampling import Sampling
    from helpers.feedback import tiny
    from helpers.training import held_out_data

    data = held_out_data(tmp_path)
    data.prepare_data()
    data.setup("test")
    model = tiny()
    model.configure_model()
    sampling = Sampling(max_new_tokens=6)
    encoder = data.prompter.tokens.encoder
    requests = data.requests("test")
    empty = np.zeros(0, dtype=np.int32)
    blanks = [
        PendingCompletion(
            data.prompter.completion(Written(request, 0, empty, "length"), sampling, system="run"),
            tuple(map(int, request.prompt_ids)),
            data.prompter.tokens.output_lead(request.marker),
        )
        for request in requests
    ]
    here = [
        data.prompter.completion(one, sampling, system="run")
        for one in generate(model.lm, requests, sampling, stop_ids=data.prompter.stop_ids, pad_id=data.prompter.pad_id)
    ]

    prompts = tmp_path / ("prompts.jsonl" if form == "plain" else "prompts.batch.jsonl")
    write_prompts(prompts, blanks, stop_token_ids=data.prompter.stop_ids, model="m")
    answers = []
    for line in map(json.loads, prompts.read_text().splitlines()):
        ids = np.array(line["body"]["prompt"], dtype=np.int32)
        settings = Sampling(max_new_tokens=line["body"]["max_tokens"], batch_size=1)
        [one] = generate(
            model.lm, [Request("x", "x", ids)], settings, stop_ids=line["body"]["stop_token_ids"], pad_id=0
        )
        text, reason = encoder.decode(one.ids, skip_special_tokens=True), "stop" if one.stop == "end" else "length"
        usage = {"prompt_tokens": len(ids), "completion_tokens": one.new_tokens}
        choice = {"text": text, "finish_reason": reason}
        answers.append(
            {
                "id": line["id"],
                "prompt_sha": line["prompt_sha"],
                "completion": text,
                "finish_reason": reason,
                "usage": usage,
            }
            if form == "plain"
            else {
                "custom_id": line["custom_id"],
                "response": {"status_code": 200, "body": {"choices": [choice], "usage": usage}},
            }
        )
    got = read_completions(
        written(tmp_path / "c.jsonl", *answers), blanks, count=lambda text: len(encoder.encode_texts([text])[0])
    )
    assert [replace(one, sampling={}) for one in got] == [replace(one, sampling={}) for one in here]
    assert len({one.text for one in got}) > 5
