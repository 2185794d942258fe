"""`Prompter` makes all prompts: records become requests (token ids), and what the model wrote becomes completions.

record ── conditions ── request            P F+           the exact ids that a training chain begins with
                     ── refinement         P F- a F+      ... that a chain of one more link begins with
                     ── review             P a Q          ... of the review of an answer
                     ── improvement        P a Q r R      ... of the better answer after it
                     ── reply              U1 a1 U2 F+    ... of a pseudo-dialogue with the model's own answers
request, ids ── completion                 the text, cut where the model continues with the next feedback sentence
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
from coh_lightning.generation.agreement import check_agreement
from coh_lightning.generation.answers import PendingCompletion
from coh_lightning.generation.request import RecordRequest, Written
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer, CutPrompt
from coh_lightning.sequences.chains import Chain, Link, Unusable
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
        attributes: Rated attributes, for a method whose sentences name ratings.
        tasks: (task, aspect) of the training records, the most frequent first.
        condition_names: Conditions to write under; None: good and bad where the method has sentences.
        max_chain_tokens: Longest prompt of a refinement; None: no limit.
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
        """`fields`: those of the class that the other arguments don't give."""
        encoder = Encoder(tokenizer, keep=prompt_format.kept_tokens)
        marked = method.sentences != "none"
        tokens = ChainTokenizer(
            encoder, prompt_format, max_prompt_tokens=max_prompt_tokens, marked=marked, reviews=method.reviews
        )
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
        check_agreement(prompter.settings(), settings, tokenizer.name_or_path)
        return prompter

    def settings(self) -> dict[str, Any]:
        """What must be the same at inference as in training; plain JSON, stored in the checkpoint."""
        settings = {
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
        return json.loads(json.dumps(settings))  # tuples become lists, as they will be when read

    def agreeing_with(self, saved: Mapping[str, Any]) -> Prompter:
        """This prompter, with the attributes of a checkpoint's settings.

        Raises:
            InputError: another setting differs from the checkpoint's; names the key and both values.
        """
        check_agreement(self.settings(), saved, self.tokens.encoder.tokenizer.name_or_path)
        return replace(self, attributes=tuple(saved["attributes"]))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self.tokens.stop_ids

    @property
    def pad_id(self) -> int:
        """The tokenizer's own, or any id: pads are masked."""
        own: int | None = self.tokens.encoder.tokenizer.pad_token_id
        return own if own is not None else self.stop_ids[0]

    # Conditions

    def all_conditions(self, record: Feedback) -> dict[str, str]:
        """Every feedback sentence that can stand before an output of this record at inference, by name."""
        return conditions_for(self.wording, self.method.sentences, record, self.attributes)

    def conditions(self, record: Feedback) -> dict[str, str]:
        """The feedback sentences to write under, by name: those of `condition_names`, by default good and bad.

        Raises:
            InputError: `condition_names` has a name that the method and wording don't have.
        """
        known = self.all_conditions(record)
        names = self.condition_names
        if names is None:
            names = tuple(name for name in ("good", "bad") if name in known)
        for name in names:
            if name not in known:
                raise InputError(
                    f"data.conditions names '{name}', but the method '{self.method.name}' has the conditions "
                    f"{', '.join(known)}{did_you_mean(name, known)}"
                )
        return {name: known[name] for name in names}

    def conditions_by_task(self) -> dict[tuple[str, str | None], dict[str, str]]:
        """All conditions for each (task, aspect) of the training records, the most frequent first."""
        turns, candidates = (Turn("user", (Part("any"),)),), (RatedCompletion("any"),)
        return {
            (task, aspect): self.all_conditions(Feedback("any", turns, candidates, task=task, aspect=aspect))
            for task, aspect in self.tasks or (("answer", None),)
        }

    def markers(self, record: Feedback) -> tuple[str, ...]:
        """The feedback sentences that may stand before an output of this record."""
        return markers(self.wording, self.method.sentences, record, self.attributes, reviews=self.method.reviews)

    # Requests

    def requests(self, records: Iterable[Feedback]) -> list[RecordRequest]:
        """Each record's prompt under each of its conditions, sorted by length."""
        found = []
        for record in records:
            prompt = self.tokens.cut_prompt(record.prompt)
            found += [self._request(record, prompt, name, marker) for name, marker in self.conditions(record).items()]
        return sorted(found, key=lambda request: (len(request.prompt_ids), request.prompt_id, request.ask))

    def request(self, record: Feedback, name: str, marker: str) -> RecordRequest:
        """A prompt under a feedback sentence, with the exact ids that training chains begin with."""
        return self._request(record, self.tokens.cut_prompt(record.prompt), name, marker)

    def _request(self, record: Feedback, prompt: CutPrompt, name: str, marker: str) -> RecordRequest:
        return RecordRequest(record.id, name, self.tokens.inference_prompt(prompt, marker), marker, record)

    def refinement(
        self, record: Feedback, answers: Sequence[str], remarks: Sequence[str | None], name: str
    ) -> RecordRequest | None:
        """The prompt of the next answer: all `answers` so far, each under the bad sentence, then the good sentence
        (paper section 4.4).

        A critic's remark is put where the method has critiques: between the answer and the next (orders with
        `revised`), or before it. None if the prompt leaves no room within `max_chain_tokens`.
        """
        known, wording = self.all_conditions(record), self.wording
        if "revised" in self.method.orders:
            critiques = [wording.revised(record, remark or wording.blame) for remark in remarks]
            markers = [wording.polarity(record, False)[0], *critiques]
        elif self.method.sentences == "critique":
            critiques = [wording.criticized(record, remark) if remark else known["bad"] for remark in remarks]
            markers = [*critiques, known["good"]]
        else:
            markers = [*[known["bad"]] * len(answers), known["good"]]
        links = tuple(Link(marker, text) for marker, text in zip(markers, answers, strict=False))
        return self._continued(record, name, links, markers[-1])

    def review(self, record: Feedback, answer: str, name: str) -> RecordRequest | None:
        """The prompt of the model's review of an answer, as in the order `reviewed`; None: there is no room for it."""
        question = self.wording.question(record)
        request = self._continued(record, name, (Link("", answer),), question)
        if request is None:
            return None
        return replace(request, record=replace(record, reference=None), answer=answer)  # which is one of answers

    def improvement(self, record: Feedback, answer: str, review: str, name: str) -> RecordRequest | None:
        """The prompt of a better answer after the review of one, as in the order `reviewed`; None: there is no room."""
        links = (Link("", answer), Link(self.wording.question(record), review))
        return self._continued(record, name, links, self.wording.request(record))

    def _continued(self, record: Feedback, name: str, links: Chain, marker: str) -> RecordRequest | None:
        ids = self.tokens.continued_prompt(self.tokens.cut_prompt(record.prompt), links, marker)
        if self.max_chain_tokens is not None and len(ids) >= self.max_chain_tokens:
            return None
        return RecordRequest(record.id, name, ids, marker, record, links)

    def replies(self, record: Feedback) -> int:
        """Answers in the pseudo-dialogue of a prompt; 0 where a user turn is empty or too long for a prompt."""
        said = turns_before_answers(record.prompt)
        system = tuple(turn for turn in record.prompt[:1] if turn.role == "system")
        try:
            for number, turns in enumerate(said):
                self.tokens.cut_prompt(turns if number == 0 else system + turns)
        except Unusable:
            return 0
        return len(said) if all(turns[-1].text.strip() for turns in said) else 0

    def reply(self, request: RecordRequest, answers: Sequence[str]) -> RecordRequest:
        """The prompt of the next answer of a pseudo-dialogue (paper section 3): the user's turns, and the model's own
        `answers` between them. `request`: that of the whole record, from `requests`.

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
        """The text of an output's ids, without special tokens and the spaces that all outputs begin with."""
        return self.tokens.encoder.decode(ids, skip_special_tokens=True).removeprefix(self._lead(request))

    def should_stop(self, request: RecordRequest, ids: Sequence[int]) -> bool:
        """Whether the text continues beyond another feedback sentence, so that nothing further counts."""
        text = self.text(request, ids)
        marker = self.next_marker(request.record).search(text)
        return marker is not None and marker.end() < len(text)

    def next_marker(self, record: Feedback) -> re.Pattern[str]:
        """Matches the next feedback sentence; one of a single word (a control token) only framed as in training."""
        form = self.tokens.layout.format
        framed = [
            rf"\s*(?:^|(?<=\s)){re.escape(text)}(?=\s|$)"
            if " " in text
            else re.escape(form.before_marker + text) + rf"(?={re.escape(form.before_output)}|$)"
            for text in self.markers(record)
        ]
        return re.compile("|".join(framed) or r"(?!)")

    def stop_texts(self, records: Iterable[Feedback]) -> list[str]:
        """Feedback sentences at which a server stops, without those of one word, which occur in ordinary text."""
        return sorted({text for record in records for text in self.markers(record) if " " in text})

    def completion(self, written: Written[RecordRequest], sampling: Sampling, *, system: str) -> Completion:
        """The record of one completion; its text is cut where another feedback sentence begins."""
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
        """The completions of these requests, to be written elsewhere (offline_inference.py)."""
        blanks = []
        for request in requests:
            ids, lead = tuple(request.prompt_ids.tolist()), self._lead(request)
            for sample in range(sampling.samples):
                blanks.append(PendingCompletion(self._pending(request, sample, sampling, system=system), ids, lead))
        return blanks

    def _lead(self, request: RecordRequest) -> str:
        return self.tokens.output_lead(request.marker, len(request.links))

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
            sampling=sampling.recorded(),
            seed=sampling.seed,
            prompt_tokens=len(request.prompt_ids),
            reference=record.reference,
            task=record.task,
            source=record.source,
            shown=read_prompt(record.prompt),
            messages=as_messages(record.prompt),
            human=request.human,
            answer=request.answer,
        )


def turns_before_answers(prompt: Sequence[Turn]) -> list[tuple[Turn, ...]]:
    """The turns before each answer of a dialogue; an opening by system or assistant belongs to the first."""
    pieces: list[list[Turn]] = [[]]
    for turn in prompt:
        if turn.role != "assistant" or (len(pieces) == 1 and not any(before.role == "user" for before in pieces[0])):
            pieces[-1].append(turn)
        elif pieces[-1]:
            pieces.append([])
    return [tuple(piece) for piece in pieces]
