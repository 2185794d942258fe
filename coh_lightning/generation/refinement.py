"""Rounds of refinement: second answers, each asked for after the model's own last one, beside a fresh draw as control.

    round 2                     P F- a F+   ──> refined 2        P F+ ──> fresh 2      a: the first answer
    round 3                     P F- a F- a2 F+ ──> refined 3    P F+ ──> fresh 3      a2: the answer of round 2

With the model as its own critic, as in the order `reviewed`: Q asks for a review, R for a better answer.

    round 2    P a Q ──> review 1 (r)    P a Q r R ──> refined 2       P F+ ──> fresh 2
    round 3    P a2 Q ──> review 2 (s)   P a2 Q s R ──> refined 3      P F+ ──> fresh 3

Each of these rounds begins anew with the last answer, since that is the chain of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.figures import FIRST, Valued, valued, with_copies
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import RecordRequest
from coh_lightning.generation.reviews import REVIEW_ASK

SELF: Literal["self"] = "self"
"""The model itself as the critic."""
Write = Callable[[Sequence[RecordRequest]], list[Completion]]
"""Writes one completion for each request, in their order; fewer if the time is over."""


@dataclass(frozen=True)
class Refinement:
    """`rounds` of second answers. `critic` gives the remark on an answer: a function, or `SELF`; None: the remark says
    that it is bad.
    """

    prompter: Prompter
    rounds: int
    critic: Callable[[Completion], str] | Literal["self"] | None = None

    def rows(self, written: Sequence[Completion], records: Mapping[str, Feedback], write: Write) -> list[Valued]:
        """The numbers of all refined answers, their reviews and their fresh draws. The first answers are those of
        sample 0 under the good sentence; `records` has the record of each by its id. `write` is called equally often a
        round, whatever is asked.
        """
        first = [one for one in written if one.ask == FIRST and one.id.endswith(":0")]
        answers = {one.prompt_id: [one] for one in first}
        rows: list[Valued] = []
        for number in range(2, self.rounds + 2):
            # where there was no room for the answer before, there is none for the next
            asked = [(records[id], own) for id, own in answers.items() if len(own) == number - 1]
            if self.critic == SELF:
                name = f"{REVIEW_ASK}{number - 1}"
                questions = [self.prompter.review(record, own[-1].text, name) for record, own in asked]
                reviews = write([one for one in questions if one is not None])
                rows += map(valued, reviews)
                said = {one.prompt_id: one.text for one in reviews}
                requests = [
                    self.prompter.improvement(record, own[-1].text, said[record.id], f"refined {number}")
                    for record, own in asked
                    if record.id in said
                ]
            else:
                requests = [self._after_all(record, own, f"refined {number}") for record, own in asked]
            refined = [one for one in requests if one is not None]
            markers = [answers[one.prompt_id][0].marker for one in refined]
            fresh = [
                self.prompter.request(one.record, f"fresh {number}", marker)
                for one, marker in zip(refined, markers, strict=True)
            ]
            second, control = write(refined), write(fresh)
            for one in second:
                answers[one.prompt_id].append(one)
            rows += with_copies(first, second) + with_copies(first, control)
        return rows

    def _after_all(self, record: Feedback, own: Sequence[Completion], name: str) -> RecordRequest | None:
        """The next answer, after all answers so far, each with the critic's remark."""
        critic = self.critic if callable(self.critic) else None
        remarks = [critic(answer) if critic else None for answer in own]
        return self.prompter.refinement(record, [answer.text for answer in own], remarks, name)
