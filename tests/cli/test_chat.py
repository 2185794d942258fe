"""`coh chat`: it asks with the prompts of the training, remembers what a chat remembers, and is steered by commands."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import regex
import torch

from coh_lightning.__main__ import main
from coh_lightning.cli import chat_session
from coh_lightning.cli.chat import do
from coh_lightning.cli.chat_model import ChatModel
from coh_lightning.cli.chat_session import ChatSession, settled
from coh_lightning.data import CoHDataModule
from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import SETTINGS, export_checkpoint
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.generation.sampling import Sampling
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.module import CoHModule
from coh_lightning.sequences.prompt_format import PromptFormat
from helpers.feedback import TINY, data_of, method, pairs
from helpers.terminal import Terminal
from helpers.tokenizers import CHATML, byte_level
from helpers.training import trainer

GOOD, BAD = "A helpful answer:", "An unhelpful answer:"
Trained = tuple[Path, CoHDataModule]


def trained(folder: Path, model: CoHModule, **settings: Any) -> Trained:
    """A run folder with a checkpoint after one step, and its data."""
    (folder / "checkpoints").mkdir(parents=True)
    data = data_of(pairs(8), folder, **settings)
    pl.seed_everything(0, verbose=False)
    run = trainer(folder, max_steps=1)
    run.fit(model, datamodule=data)
    run.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    return folder, data


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("plain") / "run", CoHModule(from_config=TINY, lr=1e-2))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("chat")
    byte_level(CHATML).save_pretrained(folder / "tokenizer")
    settings: dict[str, Any] = {"tokenizer": str(folder / "tokenizer"), "prompt_format": PromptFormat("chat")}
    return trained(folder / "run", CoHModule(from_config=TINY | {"vocab_size": 600}, lr=1e-2), **settings)


class Asked:
    """Stands for `generate`: keeps the requests and answers "answer 1", "answer 2", ..."""

    def __init__(self, data: CoHDataModule) -> None:
        self.encoder = data.prompter.tokens.encoder
        self.requests: list[RecordRequest] = []

    def __call__(self, lm: Any, requests: Sequence[RecordRequest], *args: Any, **kwargs: Any) -> list[Any]:
        self.requests += requests
        ids = np.array(self.encoder.encode_texts([f"answer {len(self.requests)}"])[0], dtype=np.int32)
        return [Written(request, 0, ids, "end", 0) for request in requests]

    @property
    def prompts(self) -> list[list[int]]:
        return [request.prompt_ids.tolist() for request in self.requests]


def of_training(data: CoHDataModule, turns: Sequence[tuple[str, str]], marker: str) -> list[int]:
    """The prompt that a record of these turns begins with in training."""
    messages = [{"role": role, "content": text} for role, text in turns]
    record = Feedback.from_json({"prompt": messages, "completions": [{"text": "any"}]}, "here")
    return data.prompter.tokens.inference_prompt(data.prompter.tokens.cut_prompt(record.prompt), marker).tolist()


load = cache(ChatModel.load)


def session_of(model: Trained, monkeypatch: pytest.MonkeyPatch) -> tuple[ChatSession, Asked]:
    loaded = load(str(model[0]))
    asked = Asked(model[1])
    monkeypatch.setattr(chat_session, "generate", asked)
    return ChatSession(loaded.lm, loaded.prompter), asked


def silent(words: str) -> None:
    pass


def test_in_the_plain_format_each_message_is_a_prompt_of_its_own(
    plain: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, asked = session_of(plain, monkeypatch)
    session.answer("Name a fruit.", silent)
    session.choose("bad")
    session.answer("And a tree?", silent)
    session.say("A short answer:")
    session.again(silent)
    data = plain[1]
    assert asked.prompts == [
        of_training(data, [("user", "Name a fruit.")], GOOD),
        of_training(data, [("user", "And a tree?")], BAD),
        of_training(data, [("user", "And a tree?")], "A short answer:"),
    ]
    assert len({request.prompt_id for request in asked.requests}) == 3  # so that each is drawn anew


def test_in_a_chat_each_message_continues_the_conversation(chat: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = session_of(chat, monkeypatch)
    session.answer("Name a fruit.", silent)
    session.choose("bad")
    session.answer("Another?", silent)
    session.choose("good")
    session.again(silent)
    session.reset()
    session.answer("Why?", silent)
    first, data = [("user", "Name a fruit."), ("assistant", "answer 1"), ("user", "Another?")], chat[1]
    assert asked.prompts == [
        of_training(data, first[:1], GOOD),
        of_training(data, first, BAD),
        of_training(data, first, GOOD),
        of_training(data, [("user", "Why?")], GOOD),
    ]


def test_guidance_leads_away_from_the_bad_sentence(plain: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = session_of(plain, monkeypatch)
    session.set(guidance=2.0)
    session.answer("Why?", silent)
    (request,) = asked.requests
    assert request.away_from_ids is not None
    assert request.away_from_ids.tolist() == of_training(plain[1], [("user", "Why?")], BAD)


@pytest.mark.parametrize("of", ["plain", "chat"])
def test_an_exported_folder_is_asked_as_its_checkpoint(
    of: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = request.getfixturevalue(of)
    export_checkpoint(run / "checkpoints" / "last.ckpt", tmp_path / "out")
    session, asked = session_of((tmp_path / "out", data), monkeypatch)
    session.answer("Name a fruit.", silent)
    session.answer("Another?", silent)
    own, before = session_of((run, data), monkeypatch)
    own.answer("Name a fruit.", silent)
    own.answer("Another?", silent)
    assert asked.prompts == before.prompts and session.prompter.settings() == own.prompter.settings()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert torch.equal(session.lm(input_ids=ids).logits, own.lm(input_ids=ids).logits)


@pytest.mark.slow
def test_exported_adapters_are_asked_with_their_base(tmp_path: Path) -> None:
    ModelSpec(from_config=TINY).build().save_pretrained(tmp_path / "base")
    run, _ = trained(tmp_path / "run", CoHModule(str(tmp_path / "base"), lr=1e-2, lora=LoRA(rank=4)))
    export_checkpoint(run / "checkpoints" / "last.ckpt", tmp_path / "out", adapter=True)
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        one, other = (ChatModel.load(str(place)).lm(input_ids=ids).logits for place in (tmp_path / "out", run))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_what_is_shown_piece_by_piece_is_the_completion(plain: Trained) -> None:
    """The same tokens as `generate` draws, cut where another feedback sentence begins."""
    model = ChatModel.load(str(plain[0]))
    sampling = Sampling(max_new_tokens=60, temperature=1.5, batch_size=1)
    for number in range(4):
        session = ChatSession(model.lm, model.prompter, sampling)
        session.set(seed=number)
        pieces: list[str] = []
        notes = session.answer("Name a fruit.", pieces.append)
        request = session._request([session.turns[0]])
        again = RecordRequest("chat/0", "good", request.prompt_ids, request.marker, request.record)
        (written,) = generate(
            model.lm, [again], session.sampling, stop_ids=model.prompter.stop_ids, pad_id=model.prompter.pad_id
        )
        whole = model.prompter.completion(written, sampling, system="")
        assert "".join(pieces) == whole.text.rstrip() == session.turns[1].text
        assert bool(notes) == (whole.stop == "length")
        assert len(pieces) > 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("An apple.", "An apple."),
        ("An apple. \n", "An apple."),
        ("An apple.\n\nA bad an", "An apple."),
        ("An apple.\n\nA bad answer:", "An apple."),
        ("An apple.\n\nA bad apple", "An apple.\n\nA bad apple"),
        ("An apple caf\ufffd", "An apple caf"),
        ("A bad answer: no", ""),
    ],
)
def test_what_may_become_a_feedback_sentence_is_held_back(text: str, shown: str) -> None:
    assert settled(text, regex.compile(r"\s*(?:^|(?<=\s))A\ bad\ answer:(?=\s|$)")) == shown


def test_an_interrupted_message_can_be_answered_again(chat: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked = session_of(chat, monkeypatch)
    session.answer("Name a fruit.", silent)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_session, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.answer("Another?", silent)
    assert [turn.text for turn in session.turns] == ["Name a fruit.", "answer 1"]
    monkeypatch.setattr(chat_session, "generate", asked)
    session.again(silent)
    assert [turn.text for turn in session.turns] == ["Name a fruit.", "answer 1", "Another?", "answer 2"]


# Commands


def test_commands_change_how_the_next_answer_is_asked(
    plain: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session, asked = session_of(plain, monkeypatch)
    said: list[str] = []

    def line(message: str) -> bool:
        return do(session, message, say=said.append, note=said.append)

    for message in ("/bad", "/guidance 2", "/temperature .5", "/tokens 40", "//Name", "", "   ", "/again"):
        assert line(message)
    assert said[-1] == f"bad: {BAD!r}, temperature 0.5, guidance 2, at most 40 tokens"
    assert session.label == "bad, guidance 2" and session.sampling.max_new_tokens == 40
    assert capsys.readouterr().out == "answer 1\nanswer 2\n"
    assert asked.prompts[0] == of_training(plain[1], [("user", "/Name")], BAD)
    line("/guidance off")
    line("/CONDITION good")
    assert said[-1].startswith(f"good: {GOOD!r}, temperature 0.5, at most")
    line("/condition")
    assert said[-1] == f"good: {GOOD}\nbad: {BAD}"
    line("/sentence A short answer:")
    assert session.label == "your sentence" and session.sentence == "A short answer:"
    line("/help")
    assert max(map(len, said[-1].split("\n"))) <= 80 and "/guidance W|off" in said[-1]
    assert not line("/quit")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("/temprature 2", "there is no command /temprature; did you mean '/temperature'?"),
        ("/what", "there is no command /what; /help lists them."),
        ("/condition godo", "there is no condition 'godo', only good, bad; did you mean 'good'?"),
        ("/temperature warm", "/temperature takes a number, not 'warm'."),
        ("/temperature", "/temperature takes a number, such as /temperature 2."),
        ("/temperature -1", "sampling.temperature is -1.0; it must be 0 (greedy) or positive."),
        ("/tokens 0", "sampling.max_new_tokens is 0; it must be at least 1."),
        ("/tokens 2.5", "/tokens takes a whole number, not '2.5'."),
        ("/again", "there is no message to answer again."),
        ("/good morning", "/good takes nothing after it; a message that begins with a slash is written //good ..."),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    message: str, says: str, plain: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = session_of(plain, monkeypatch)
    before = (session.condition, session.sentence, session.sampling, list(session.turns))
    with pytest.raises(InputError) as error:
        do(session, message, say=silent, note=silent)
    assert str(error.value) == says
    assert before == (session.condition, session.sentence, session.sampling, session.turns)


def test_a_message_that_is_too_long_is_refused_or_cut_and_said(chat: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = session_of(chat, monkeypatch)
    for _ in range(4):
        notes = session.answer("one two three four five six seven eight nine ten", silent)
    assert notes and notes[0].startswith("the prompt lost ") and "a prompt has at most 128" in notes[0]


def test_a_model_without_sentences_is_asked_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(tmp_path / "run", CoHModule(from_config=TINY), method=method("sft"))
    session, asked = session_of(model, monkeypatch)
    session.answer("Why?", silent)
    assert asked.prompts == [of_training(model[1], [("user", "Why?")], "")]
    for call in (lambda: session.say("So:"), lambda: session.set(guidance=1.0)):
        with pytest.raises(InputError, match=r"has no|has none"):
            call()


# The command


def piped(text: str, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return main(["chat", *words])


def test_a_pipe_gives_answers_alone(
    plain: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(plain[1])
    monkeypatch.setattr(chat_session, "generate", asked)
    text = '/bad\nName a fruit.\n"""Two\nlines"""\n/quit\nnever\n'
    assert piped(text, [str(plain[0])], monkeypatch) == 0
    assert capsys.readouterr().out == "answer 1\nanswer 2\n"
    assert asked.prompts == [of_training(plain[1], [("user", words)], BAD) for words in ("Name a fruit.", "Two\nlines")]
    assert piped("Why?\n/godo\nWhy?\n", [str(plain[0])], monkeypatch) == 2
    out, err = capsys.readouterr()
    assert out == "answer 3\n"
    assert "error: line 2 of the input: there is no command /godo; did you mean '/good'?\n" in err


def test_the_same_seed_gives_the_same_talk(
    plain: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for seed in ("1", "1", "2"):
        assert piped("/tokens 12\nWhy?\n/again\n", [str(plain[0]), "--seed", seed], monkeypatch) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2] and said[0].count("\n") >= 2


def test_places_without_a_model_are_refused_before_anything_is_loaded(
    plain: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text("{}")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / SETTINGS).write_text("[]")
    for name, says in (
        ("nothing", "there is no such run, checkpoint or folder."),
        ("empty", f"has neither a checkpoint nor {SETTINGS}; give a run folder, or what coh export wrote."),
        ("foreign", f"has no {SETTINGS}, which says how to ask the model; write it with coh export."),
        ("damaged", "is damaged ("),
    ):
        assert main(["chat", str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and says in err and err.count("\n") == 1


def test_the_checkpoints_folder_and_a_file_are_the_run_too(plain: Trained) -> None:
    file = plain[0] / "checkpoints" / "last.ckpt"
    assert {ChatModel.load(str(place)).place for place in (plain[0], file.parent, file)} == {file}


def test_an_export_keeps_what_prompts_are_made_with(chat: Trained, tmp_path: Path) -> None:
    export_checkpoint(chat[0] / "checkpoints" / "last.ckpt", tmp_path / "out")
    kept = json.loads((tmp_path / "out" / SETTINGS).read_text(encoding="utf-8"))
    assert kept == {"data": chat[1].settings(), "chat_template": CHATML}


@pytest.mark.slow
def test_a_talk_in_a_terminal(plain: Trained) -> None:
    """Typed lines with their history, a mistake, a command completed by Tab, Ctrl-C, a pasted text, and Ctrl-D."""
    terminal = Terminal(["-m", "coh_lightning", "chat", str(plain[0])], cwd=plain[0])
    try:
        hello = terminal.until("good> ")
        assert "/help lists the commands" in hello and "each message is a prompt of its own" in hello
        assert max(map(len, hello.split("\r\n")[1:])) <= 80
        terminal.type("/tokens 8\r")
        assert "at most 8 tokens" in terminal.until("good> ")
        terminal.type("Name a fruit.\r")
        terminal.until("good> ")
        terminal.type("/bda\r")
        assert "did you mean '/bad'?" in terminal.until("good> ")
        terminal.type("/bad\r")
        terminal.until("bad> ")
        terminal.type("\x1b[A\x1b[A\x1b[A")  # the message, three lines ago
        terminal.until("Name a fruit.")
        terminal.pause()  # the line is drawn more than once, each time with the prompt
        terminal.type("\r")
        terminal.until("bad> ")
        terminal.pause()
        terminal.type("/con\t")
        terminal.until("/condition")
        terminal.type("\x15")  # deletes the line
        terminal.pause()
        terminal.type("\x03")  # Ctrl-C
        assert "(Ctrl-D or /quit ends)" in terminal.until("bad> ")
        terminal.type("\x1b[200~one line\ntwo lines\x1b[201~\r")  # pasted
        said = terminal.until("bad> ")
        assert "one line" in said and "two lines" in said  # and only then an answer
        terminal.type("\x04")
        assert terminal.wait() == 0
    finally:
        terminal.close()
