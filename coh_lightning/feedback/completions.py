"""What a model wrote: one line of `completions.jsonl`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coh_lightning.checks import checked_text, flat_values, number
from coh_lightning.errors import InputError, named
from coh_lightning.feedback.turns import read_messages


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one prompt under one feedback sentence, with everything needed to generate it again."""

    id: str
    prompt_id: str
    """Id of the record of the prompt."""
    system: str
    """Name of the model or run."""
    prompt: str
    """The exact text that was continued, including the feedback sentence."""
    prompt_sha: str
    """SHA-256 of the record's prompt without the feedback sentence: equal for all systems that are compared."""
    ask: str
    """The condition: "good", "bad", ... or "" for none."""
    marker: str
    """The feedback sentence itself."""
    text: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Temperature, top_p, max_new_tokens, ..."""
    stop: str = ""
    """Why it ended: "end" (the end token), "marker" (a feedback sentence followed, which is cut off), "length", ..."""
    seed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reference: str | None = None
    task: str = "answer"
    source: str = ""
    shown: str | None = None
    """The prompt as a rater sees it, without the feedback sentence."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The same prompt as chat messages of `role` and `content`; in a pseudo-dialogue with the system's own answers."""
    human: str | None = None
    """In a pseudo-dialogue, the user's last turn; the earlier assistant turns in `shown` are this system's own."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Scores by name, from scorers."""

    @classmethod
    def from_json(cls, obj: object, where: str) -> Completion:
        """Read one line of `completions.jsonl`. Raises InputError naming `where` and the key."""
        values = flat_values(cls, obj, where)
        try:
            json.dumps(values.get("sampling"), ensure_ascii=False, allow_nan=False).encode("utf-8")
        except ValueError as error:
            raise InputError(f"{where}: sampling has a number that is not finite, or a lone surrogate.") from error
        if "scores" in values:
            values["scores"] = {
                checked_text(name, "scores", where): number(value, f"scores.{named(name)}", where)
                for name, value in values["scores"].items()
            }
        if "messages" in values:
            values["messages"] = read_messages(values["messages"], "messages", where)
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self) | {"messages": [dict(message) for message in self.messages] or None}
        return {name: value for name, value in values.items() if value is not None}
