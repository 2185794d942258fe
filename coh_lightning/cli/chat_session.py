"""A talk with a model: the conversation so far, the feedback sentence and the sampling, and the next answer.

    chat format     each message continues the conversation
    plain format    each message is a prompt of its own

Prompts are made by `Prompter` alone, so they are, id for id, those of the training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import regex

from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Turn, plain_turn
from coh_lightning.generation.decoding import generate
from coh_lightning.generation.guidance import with_other_prompt
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import RecordRequest
from coh_lightning.generation.sampling import Sampling
from coh_lightning.sequences.chains import Unusable

DEFAULT = Sampling(max_new_tokens=256, temperature=0.7, batch_size=1)
OWN = "your sentence"
"""The condition of a sentence that was typed."""


class ChatSession:
    """What is asked next, and how. `lm` and `prompter` are those of one model."""

    def __init__(self, lm: Any, prompter: Prompter, sampling: Sampling = DEFAULT) -> None:
        self.lm, self.prompter, self.sampling = lm, prompter, sampling
        self.turns: list[Turn] = []
        """Messages and answers; the last is the model's."""
        self.condition = "good"
        self.sentence = self.conditions[self.condition]
        self._asked: Sequence[Turn] = ()
        """The last message, with what was before it."""
        self._answers = 0

    @property
    def keeps_turns(self) -> bool:
        return self.prompter.tokens.layout.format.kind == "chat"

    @property
    def conditions(self) -> dict[str, str]:
        """The feedback sentences of the training's most frequent task, by name."""
        return next(iter(self.prompter.conditions_by_task().values()))

    @property
    def label(self) -> str:
        """good; bad, guidance 2; ..."""
        guidance = self.sampling.guidance
        return self.condition + ("" if guidance is None else f", guidance {guidance:g}")

    def choose(self, name: str) -> None:
        """Ask under this condition from now on. Raises InputError if there is none of that name."""
        known = self.conditions
        if name not in known:
            raise InputError(f"there is no condition '{name}', only {', '.join(known)}{did_you_mean(name, known)}")
        self.condition, self.sentence = name, known[name]

    def say(self, sentence: str) -> None:
        """Ask under a sentence of one's own."""
        if self.prompter.method.sentences == "none":
            raise InputError(f"the method '{self.prompter.method.name}' has no feedback sentences.")
        self.condition, self.sentence = OWN, sentence

    def set(self, **settings: Any) -> None:
        """Change the sampling. Raises InputError as `Sampling` does, or if guidance has no other sentence."""
        sampling = replace(self.sampling, **settings)
        if sampling.guidance:
            with_other_prompt(self.prompter, self._request([plain_turn("user", "any")]), sampling.guidance_from)
        self.sampling = sampling

    def reset(self) -> None:
        self.turns, self._asked = [], ()

    def answer(self, message: str, show: Callable[[str], None]) -> list[str]:
        """Writes the next answer, piece by piece to `show`, and adds it to the conversation.

        Returns:
            What should be known about it, a sentence each.

        Raises:
            InputError: the message can't be asked.
        """
        return self._answer([*(self.turns if self.keeps_turns else []), plain_turn("user", message)], show)

    def again(self, show: Callable[[str], None]) -> list[str]:
        """Answers the last message anew, as things are set now, also one whose answer was interrupted."""
        if not self._asked:
            raise InputError("there is no message to answer again.")
        return self._answer(self._asked, show)

    def _answer(self, turns: Sequence[Turn], show: Callable[[str], None]) -> list[str]:
        try:
            request = self._request(turns)
            cut = self.prompter.tokens.cut_prompt(tuple(turns))
        except Unusable as reason:
            raise InputError(f"this can't be asked: {reason}.") from reason
        self._asked = turns
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            text, stop = self._write(request, show)
        self.turns = [*turns, plain_turn("assistant", text)]
        notes = [str(one.message).rstrip(".") for one in warned]
        if cut.cut:
            whole = f", {counted(cut.dropped, 'old turn')} of it whole" if cut.dropped else ""
            most = f"a prompt has at most {self.prompter.tokens.max_prompt_tokens:,}"
            notes.append(f"the prompt lost {counted(cut.cut, 'token')}{whole}: {most}")
        if stop == "length":
            notes.append(f"it was cut at {counted(self.sampling.max_new_tokens, 'token')}; /tokens N allows more")
        return notes

    def _request(self, turns: Sequence[Turn]) -> RecordRequest:
        task, aspect = next(iter(self.prompter.conditions_by_task()))
        # the number of the answer is in its id, so that one asked again is drawn anew
        id = f"chat/{self._answers}"
        record = Feedback(id, tuple(turns), (RatedCompletion("any"),), task=task, aspect=aspect)
        return self.prompter.request(record, self.condition, self.sentence)

    def _write(self, request: RecordRequest, show: Callable[[str], None]) -> tuple[str, str]:
        """The text of an answer and why it ended; its pieces go to `show` as they are written."""
        self._answers += 1
        sampling, prompter = self.sampling, self.prompter
        if sampling.guidance:
            request = with_other_prompt(prompter, request, sampling.guidance_from)
        shown = ""
        marker = regex.compile(prompter.next_marker(request.record).pattern)

        def stop(request: RecordRequest, ids: Sequence[int]) -> bool:
            nonlocal shown
            certain = settled(prompter.text(request, ids), marker)
            if len(certain) > len(shown) and certain.startswith(shown):
                show(certain[len(shown) :])
                shown = certain
            return prompter.should_stop(request, ids)

        stop_ids, pad_id = prompter.stop_ids, prompter.pad_id
        (written,) = generate(self.lm, [request], sampling, stop_ids=stop_ids, pad_id=pad_id, should_stop=stop)
        whole = prompter.completion(written, sampling, system="")
        text = whole.text.rstrip()
        if text.startswith(shown):
            show(text[len(shown) :])
        else:  # later tokens changed how earlier ones read
            show(f"\n{text}")
        return text, whole.stop


def settled(text: str, marker: regex.Pattern[str]) -> str:
    """The start of an unfinished text that nothing can change: without what may become a feedback sentence, a
    character that is still incomplete, and white space at the end.

    "An apple.\\n\\nA bad an"   ->   "An apple."      "A bad answer:" may follow
    """
    found = marker.search(text, partial=True)
    text = text if found is None else text[: found.start()]
    return text.rstrip("\ufffd").rstrip()
