"""`Prompter`: the one maker of prompts. Records become requests (token ids), and what the model wrote becomes
completions.

    record ── conditions ── request            P F+           the very ids that a training chain begins with
                         ── refinement         P F- a F+      ... that a chain of one more link begins with
                         ── reply              U1 a1 U2 F+    ... of a pseudo-dialogue with the model's own answers
    request, ids ── completion                 the text, cut where the model goes on with the next feedback sentence

What a checkpoint stores is enough to make one: `Prompter.from_settings(settings, tokenizer)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.records import Feedback, RatedCompletion, prompt_sha
from coh_lightning.feedback.turns import Part, Turn, as_messages, read_prompt
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.generation.settings_agreement import check_agreement, check_tokenizer
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt
from coh_lightning.sequences.chains import Link, Unusable
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording, conditions_for, markers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.generation.sampling import Sampling


@dataclass(frozen=True)
class Prompter:
    """Prompts for records, in the wording, method and format of the training.

    Args:
        tokens: Tokenizer and prompt format.
        method: Its sentences decide which conditions there are.
        wording: The feedback sentences.
        attributes: Rated attributes to ask for, for a method whose sentences speak of ratings.
        tasks: (task, aspect) of the training records, the commonest first.
        conditions: Conditions to write under, by name; None: good and bad where the method has sentences.
        max_chain_tokens: A refinement whose prompt leaves no room within it is not made; None: no limit.
    """

    tokens: ChainTokenizer
    method: Method
    wording: Wording
    attributes: tuple[str, ...] = ()
    tasks: tuple[tuple[str, str | None], ...] = ()
    condition_names: tuple[str, ...] | None = None
    max_chain_tokens: int | None = None

    @classmethod
    def make(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        method: Method,
        wording: Wording,
        prompt_format: PromptFormat,
        *,
        max_prompt_tokens: int,
        **fields: Any,
    ) -> Prompter:
        """`fields`: those of the class."""
        encoder = Encoder(tokenizer, keep=prompt_format.kept_tokens)
        marked = method.sentences != "none"
        tokens = ChainTokenizer(encoder, prompt_format, max_prompt_tokens=max_prompt_tokens, marked=marked)
        return cls(tokens, method, wording, **fields)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Prompter:
        """The prompter of a checkpoint's settings (`settings()`).

        Raises:
            InputError: the tokenizer, or its chat template, is not the one of the training.
        """
        prompter = cls.make(
            tokenizer,
            Method(**{**settings["method"], "orders": tuple(settings["method"]["orders"])}),
            Wording.from_settings(settings["wording"]),
            PromptFormat(**settings["prompt_format"]),
            max_prompt_tokens=settings["max_prompt_tokens"],
            attributes=tuple(settings["attributes"]),
            tasks=tuple((task, aspect) for task, aspect in settings["tasks"]),
        )
        check_tokenizer(prompter.settings(), settings, tokenizer.name_or_path)
        return prompter

    def settings(self) -> dict[str, Any]:
        """What a model must be asked with as it was trained with; plain JSON, stored in the checkpoint."""
        return json.loads(  # tuples become lists, as they will be when read
            json.dumps(
                {
                    "method": asdict(self.method),
                    "wording": asdict(self.wording),
                    "prompt_format": asdict(self.tokens.layout.format),
                    "max_prompt_tokens": self.tokens.max_prompt_tokens,
                    "attributes": self.attributes,
                    "tasks": self.tasks,
                    "tokenizer": self.tokens.encoder.tokenizer_hash,
                    "chat_template": self.tokens.layout.template_hash,
                    "stop_ids": self.stop_ids,
                }
            )
        )

    def agreeing_with(self, saved: Mapping[str, Any]) -> Prompter:
        """This prompter, with the attributes of a checkpoint's settings.

        Raises:
            InputError: another setting differs from the checkpoint's; names the key and both values.
        """
        check_agreement(self.settings(), saved, self.tokens.encoder.tokenizer.name_or_path)
        return replace(self, attributes=tuple(saved["attributes"]))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end an output."""
        return self.tokens.stop_ids

    @property
    def pad_id(self) -> int:
        """The tokenizer's own where it has one; else any id will do, since pads are masked."""
        own: int | None = self.tokens.encoder.tokenizer.pad_token_id
        return own if own is not None else self.stop_ids[0]

    # Conditions

    def all_conditions(self, record: Feedback) -> dict[str, str]:
        """Every feedback sentence that a record's output can be asked for under, by name."""
        return conditions_for(self.wording, self.method.sentences, record, self.attributes)

    def conditions(self, record: Feedback) -> dict[str, str]:
        """The feedback sentences to write under, by name: those of `condition_names`, by default good and bad.

        Raises:
            InputError: `condition_names` has a name that the method and wording don't have.
        """
        known = self.all_conditions(record)
        names = (
            self.condition_names
            if self.condition_names is not None
            else [name for name in ("good", "bad") if name in known]
        )
        for name in names:
            if name not in known:
                raise InputError(
                    f"data.conditions names '{name}', but the method '{self.method.name}' can be asked for "
                    f"{', '.join(known)}{did_you_mean(name, known)}"
                )
        return {name: known[name] for name in names}

    def conditions_by_task(self) -> dict[tuple[str, str | None], dict[str, str]]:
        """All conditions for each (task, aspect) of the training records, the commonest first."""
        turns, candidates = (Turn("user", (Part("any"),)),), (RatedCompletion("any"),)
        return {
            (task, aspect): self.all_conditions(Feedback("any", turns, candidates, task=task, aspect=aspect))
            for task, aspect in self.tasks or (("answer", None),)
        }

    def markers(self, record: Feedback) -> tuple[str, ...]:
        """The feedback sentences that may stand before an output of this record."""
        return markers(self.wording, self.method.sentences, record, self.attributes)

    # Requests

    def requests(self, records: Iterable[Feedback]) -> list[RecordRequest]:
        """Each record's prompt under each of its conditions, sorted by length."""
        found = []
        for record in records:
            prompt = self.tokens.cut_prompt(record.prompt)
            found += [self._request(record, prompt, name, marker) for name, marker in self.conditions(record).items()]
        return sorted(found, key=lambda request: (len(request.prompt_ids), request.prompt_id, request.ask))

    def request(self, record: Feedback, name: str, marker: str) -> RecordRequest:
        """A prompt under a feedback sentence, with the very ids that training chains begin with."""
        return self._request(record, self.tokens.cut_prompt(record.prompt), name, marker)

    def _request(self, record: Feedback, prompt: CutPrompt, name: str, marker: str) -> RecordRequest:
        return RecordRequest(record.id, name, self.tokens.inference_prompt(prompt, marker), marker, record)

    def refinement(
        self, record: Feedback, answers: Sequence[str], remarks: Sequence[str | None], name: str
    ) -> RecordRequest | None:
        """The prompt of the next answer: all `answers` so far, each under the bad sentence, then the good sentence
        (paper section 4.4).

        A remark, what was said of an answer, stands where the method has critiques: between the answer and the next
        (orders with `revised`), else before it. None where the prompt leaves no room within `max_chain_tokens`.
        """
        known = self.all_conditions(record)
        if "revised" in self.method.orders:
            said = [self.wording.revised(record, remark or self.wording.blame) for remark in remarks]
            markers = [self.wording.polarity(record, False)[0], *said]
        elif self.method.sentences == "critique":
            markers = [
                *(self.wording.criticized(record, remark) if remark else known["bad"] for remark in remarks),
                known["good"],
            ]
        else:
            markers = [*[known["bad"]] * len(answers), known["good"]]
        links = tuple(Link(marker, text) for marker, text in zip(markers, answers, strict=False))
        ids = self.tokens.continued_prompt(self.tokens.cut_prompt(record.prompt), links, markers[-1])
        if self.max_chain_tokens is not None and len(ids) >= self.max_chain_tokens:
            return None
        return RecordRequest(record.id, name, ids, markers[-1], record, place=len(links))

    def replies(self, record: Feedback) -> int:
        """Answers in the pseudo-dialogue of a prompt; 0 where a user turn is empty or longer than a prompt may be."""
        said = turns_before_answers(record.prompt)
        system = tuple(turn for turn in record.prompt[:1] if turn.role == "system")
        try:
            for number, turns in enumerate(said):
                self.tokens.cut_prompt(turns if number == 0 else system + turns)
        except Unusable:
            return 0
        return len(said) if all(turns[-1].text.strip() for turns in said) else 0

    def reply(self, request: RecordRequest, answers: Sequence[str]) -> RecordRequest:
        """The prompt of the next answer of a pseudo-dialogue (paper section 3): the user's turns as they were, and the
        model's own `answers` between them. `request`: that of the whole record, as `requests` makes it.

        user 1, assistant 1, user 2, assistant 2, user 3   after the answer "A"   ->   user 1, "A", user 2   (ID#2)
        """
        said = turns_before_answers(request.record.prompt)[: len(answers) + 1]
        turns = list(said[0])
        for answer, following in zip(answers, said[1:], strict=True):
            turns += [Turn("assistant", (Part(answer, "front"),)), *following]
        record = replace(request.record, id=f"{request.record.id}#{len(said)}", prompt=tuple(turns), reference=None)
        human = "\n\n".join(turn.text for turn in said[-1] if turn.role == "user")
        return replace(self.request(record, request.ask, request.marker), human=human)

    # What was written

    def text(self, request: RecordRequest, ids: Sequence[int] | NDArray[np.int32]) -> str:
        """The text of an output's ids, special tokens and the spaces that all outputs begin with left out."""
        return self.tokens.encoder.decode(ids, skip_special_tokens=True).removeprefix(self._lead(request))

    def should_stop(self, request: RecordRequest, ids: Sequence[int]) -> bool:
        """Whether the model went on with another feedback sentence, and beyond it, so that nothing further counts."""
        text = self.text(request, ids)
        marker = self.next_marker(request.record).search(text)
        return marker is not None and marker.end() < len(text)

    def next_marker(self, record: Feedback) -> re.Pattern[str]:
        """Where an output is over because the model went on with the next feedback sentence. A marker of one word (a
        control token) counts only framed as in training.
        """
        form = self.tokens.layout.format
        framed = [
            rf"\s*(?:^|(?<=\s)){re.escape(text)}(?=\s|$)"
            if " " in text
            else re.escape(form.before_marker + text) + rf"(?={re.escape(form.before_output)}|$)"
            for text in self.markers(record)
        ]
        return re.compile("|".join(framed) or r"(?!)")

    def stop_texts(self, records: Iterable[Feedback]) -> list[str]:
        """Feedback sentences at which a server stops; those of one word would end an ordinary text."""
        return sorted({text for record in records for text in self.markers(record) if " " in text})

    def completion(self, written: Written[RecordRequest], sampling: Sampling, *, system: str) -> Completion:
        """The record of one completion, with the exact prompt and settings; a text that goes on with another feedback
        sentence is cut there.
        """
        request = written.request
        text = self.text(request, written.ids)
        marker = self.next_marker(request.record).search(text)
        pending = self._pending(request, written.sample, sampling, system=system)
        if marker is None:
            return replace(pending, text=text, stop=written.stop, completion_tokens=written.new_tokens)
        text = text[: marker.start()]
        tokens = len(self.tokens.encoder.encode_texts([self._lead(request) + text])[0])
        return replace(pending, text=text, stop="marker", completion_tokens=tokens)

    def blanks(self, requests: Iterable[RecordRequest], sampling: Sampling, *, system: str) -> list[PendingCompletion]:
        """The completions of these requests, to be written elsewhere (exchange.py)."""
        return [
            PendingCompletion(
                self._pending(request, sample, sampling, system=system),
                tuple(request.prompt_ids.tolist()),
                self._lead(request),
            )
            for request in requests
            for sample in range(sampling.samples)
        ]

    def _lead(self, request: RecordRequest) -> str:
        return self.tokens.output_lead(request.marker, request.place)

    def _pending(self, request: RecordRequest, sample: int, sampling: Sampling, *, system: str) -> Completion:
        """The completion, its text still empty."""
        record = request.record
        return Completion(
            id=f"{record.id}:{request.ask}:{sample}",
            prompt_id=record.id,
            system=system,
            prompt=self.tokens.encoder.decode(request.prompt_ids),
            prompt_sha=prompt_sha(record),
            ask=request.ask,
            marker=request.marker,
            text="",
            sampling={name: value for name, value in asdict(sampling).items() if value is not None},
            seed=sampling.seed,
            prompt_tokens=len(request.prompt_ids),
            reference=record.reference,
            task=record.task,
            source=record.source,
            shown=read_prompt(record.prompt),
            messages=as_messages(record.prompt),
            human=request.human,
        )


def turns_before_answers(prompt: Sequence[Turn]) -> list[tuple[Turn, ...]]:
    """What stands before each answer of a dialogue, the answers themselves left out; a system turn and an opening by
    the assistant belong to the first.
    """
    pieces: list[list[Turn]] = [[]]
    for turn in prompt:
        if turn.role != "assistant" or (len(pieces) == 1 and not any(before.role == "user" for before in pieces[0])):
            pieces[-1].append(turn)
        elif pieces[-1]:
            pieces.append([])
    return [tuple(piece) for piece in pieces]
