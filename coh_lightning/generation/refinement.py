"""Rounds of refinement: second answers, each asked for after the model's own last one, beside a fresh draw as control.

round 2    P F- a F+ ──> refined 2        P F+ ──> fresh 2         a: the first answer to this prompt
round 3    P F- a F- a2 F+ ──> refined 3  P F+ ──> fresh 3         a2: that of round 2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.records import Feedback
from coh_lightning.generation.figures import FIRST, Valued, with_copies
from coh_lightning.generation.prompter import Prompter
from coh_lightning.generation.request import RecordRequest

Write = Callable[[Sequence[RecordRequest]], list[Completion]]
"""Writes one completion for each request, in their order; fewer if the time is over."""


@dataclass(frozen=True)
class Refinement:
    """`rounds` of second answers. `critic` gives the remark on an answer; None: the remark says that it is bad."""

    prompter: Prompter
    rounds: int
    critic: Callable[[Completion], str] | None = None

    def rows(self, written: Sequence[Completion], records: Mapping[str, Feedback], write: Write) -> list[Valued]:
        """The numbers of all refined answers and their fresh draws. The first answers are those of sample 0 under the
        good sentence; `records` has the record of each by its id. `write` is called twice a round, whatever is asked.
        """
        first = [one for one in written if one.ask == FIRST and one.id.endswith(":0")]
        answers = {one.prompt_id: [one] for one in first}
        rows: list[Valued] = []
        for number in range(2, self.rounds + 2):
            refined, fresh = [], []
            for prompt_id, own in answers.items():
                if len(own) < number - 1:  # there was no room for the answer before
                    continue
                remarks = [self.critic(answer) if self.critic else None for answer in own]
                texts = [answer.text for answer in own]
                request = self.prompter.refinement(records[prompt_id], texts, remarks, f"refined {number}")
                if request is not None:
                    refined.append(request)
                    fresh.append(self.prompter.request(records[prompt_id], f"fresh {number}", own[0].marker))
            second, control = write(refined), write(fresh)
            for one in second:
                answers[one.prompt_id].append(one)
            rows += with_copies(first, second) + with_copies(first, control)
        return rows
