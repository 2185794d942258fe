"""Requests to a model and what it wrote, as token ids; `decoding.generate` turns one into the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError
from coh_lightning.feedback.records import Feedback
from coh_lightning.sequences.chains import Chain


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt. Requests with the same `prompt_id` and `ask` (the condition: good, bad, ...) get the same draws."""

    prompt_id: str
    ask: str
    prompt_ids: NDArray[np.int32]
    """The exact inference prompt, BOS and feedback sentence included; shape (n,), n >= 1."""
    away_from_ids: NDArray[np.int32] | None = field(default=None, kw_only=True)
    """The same prompt under the sentence that guidance leads away from; None: no other sentence."""

    def __post_init__(self) -> None:
        for ids in self.prompts:
            if ids.ndim != 1 or not len(ids):
                what = f"The prompt '{self.prompt_id}' ({self.ask}) has shape {ids.shape}"
                raise InputError(f"{what}, not at least one token.")

    @property
    def prompts(self) -> list[NDArray[np.int32]]:
        """Its own prompt and, if there is one, that of the other sentence."""
        return [self.prompt_ids, *([] if self.away_from_ids is None else [self.away_from_ids])]


@dataclass(frozen=True, eq=False)
class RecordRequest(Request):
    """A record's prompt under a feedback sentence (`marker`, empty for a method without sentences)."""

    marker: str
    record: Feedback
    """In a pseudo-dialogue, the record of this turn, with the model's own answers in its prompt."""
    links: Chain = ()
    """Outputs before it in the prompt, with their sentences (refinement)."""
    human: str | None = None
    """In a pseudo-dialogue, what the user said last."""
    answer: str | None = None
    """What the model is asked to review; None: it is asked for an answer."""


R = TypeVar("R", bound=Request)
"""Callers may give requests more fields, and get them back with what was written."""
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Written(Generic[R]):
    """What the model wrote for one request."""

    request: R
    sample: int
    ids: NDArray[np.int32]
    """Without the stop id."""
    stop: Literal["end", "length"]
    """end: the model wrote a stop id; length: `max_new_tokens` or the model's last position came first."""
    stop_id: int | None = None
    """The stop id that it wrote."""

    @property
    def new_tokens(self) -> int:
        """Tokens that the model wrote, the stop id included."""
        return len(self.ids) + (self.stop == "end")


class OpaqueList(Generic[T]):
    """A list that Lightning doesn't look into: it refuses frozen dataclasses in batches and predictions."""

    def __init__(self, items: Sequence[T]) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> T:
        return self._items[index]
