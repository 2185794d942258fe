"""What is asked of the model and what it wrote: requests and completions as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from coh_lightning.errors import InputError

Item = TypeVar("Item")


class Unmoved(Generic[Item]):
    """A list that Lightning doesn't look into: it moves batches and predictions between devices item by item, and
    refuses frozen dataclasses there.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = tuple(items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Item:
        return self._items[index]


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt, as ids, and what it asks for. `prompt_id` and `ask` key the random numbers: two requests that share
    both get the same draws.
    """

    prompt_id: str
    ask: str
    """The name of the feedback sentence: good, bad, ..."""
    marker: str
    """Its words, as they stand in the prompt."""
    prompt_ids: NDArray[np.int32]
    """The exact inference prompt, BOS and marker included; shape (n,), n >= 1."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the caller wants back beside the completion; never looked at."""

    def __post_init__(self) -> None:
        if self.prompt_ids.ndim != 1 or not len(self.prompt_ids):
            raise InputError(
                f"The prompt '{self.prompt_id}' ({self.ask}) has ids of shape {self.prompt_ids.shape}; a prompt "
                "needs at least one token."
            )


@dataclass(frozen=True, eq=False)
class Written:
    """What the model wrote for one request."""

    request: Request
    sample: int
    """0, 1, ... `Sampling.samples` - 1."""
    ids: NDArray[np.int32]
    """Without the stop id."""
    stop: Literal["end", "length"]
    """end: the model wrote a stop id; length: `max_new_tokens` or the model's last position came first."""

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def new_tokens(self) -> int:
        """Tokens that the model wrote, stop id included."""
        return len(self.ids) + (self.stop == "end")
