"""The format of a prompt, `plain` (paragraphs) or `chat` (the tokenizer's own template), and the segments of a chain.

Each segment is tokenized alone, so that a loss weight never straddles a token:

    plain   <s>|Name a fruit.\\n\\n|A good answer:\\n|Apple|</s>|\\n\\nA bad answer:\\n|Stone|</s>
            bos|prompt          |marker         |good |end |marker            |bad  |end

    chat    <|user|>\\n|Name a fruit.\\n\\n|A good answer:|<|end|>\\n<|bot|>\\n|Apple|<|end|>|   and for the second link
            prompt    |prompt          |marker        |prompt           |good |end    |
            \\n<|user|>\\n|A bad answer:|<|end|>\\n<|bot|>\\n|Stone|<|end|>
            marker      |marker       |marker           |bad  |end

Where two segments meet, line ends belong to the segment before, spaces to the one after (tokenizers glue a space to the
next word): this keeps the ids of the joint text under nearly all tokenizers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from coh_lightning.errors import InputError, did_you_mean
from coh_lightning.feedback.turns import Part, Role, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["plain", "chat"]
MarkerIn = Literal["user", "system"]
At = Literal["head", "special", "mid"]
"""Where a segment begins: head of the document, after a special token (both may add a space), or middle of the text."""

BLANK_LINE = "\n\n"
"""Between the turns of a plain conversation, and between system and user text where a template has no system role."""


@dataclass(frozen=True)
class PromptFormat:
    """The settings of a format. They are stored in the checkpoint: training and inference share them."""

    kind: Kind = "plain"
    marker_in: MarkerIn = "user"
    """Chat only: the feedback sentence ends the last user turn, or is in the system turn."""
    before_marker: str = BLANK_LINE
    before_output: str = "\n"
    """Plain only: a chat template has its own. Spaces at its end become the first characters of the output."""
    user_label: str = "User:"
    """Plain only, and only in conversations of several turns: a single user turn has no label."""
    assistant_label: str = "Assistant:"
    kept_tokens: tuple[str, ...] = ()
    """Added tokens (`<think>`) that stay tokens in people's texts, because the model writes them."""

    def __post_init__(self) -> None:
        known: dict[str, tuple[str, ...]] = {"kind": get_args(Kind), "marker_in": get_args(MarkerIn)}
        for key, names in known.items():
            if (value := getattr(self, key)) not in names:
                hint = did_you_mean(value, names)
                raise InputError(f"The prompt format has {key}: '{value}', known are {' and '.join(names)}{hint}")
        object.__setattr__(self, "kept_tokens", tuple(self.kept_tokens))  # a list when read from a checkpoint


class CutRange(NamedTuple):
    """Characters [start, stop) of a segment's text that may lose tokens, from which side, and how many."""

    start: int
    stop: int
    side: Literal["front", "back"]
    tokens: int


class Segment(NamedTuple):
    """A piece of a chain's text that is tokenized alone."""

    text: str
    special: bool = False  # a piece of a template, with special tokens; in people's text they are spelled out
    learned: float = 0.0
    unlearned: float = 0.0
    kind: str = "prompt"  # prompt, marker, end, or the kind of the link whose output it is
    place: int = -1  # index of the link in its chain; -1 for the prompt
    at: At = "mid"
    more: bool = False
    """Text without a space at its start follows (never an output): this decides the ids of line ends at the end."""
    cut: tuple[CutRange, ...] = ()


class CutTurn(NamedTuple):
    """A turn of the prompt after truncation: its whole text, and how many tokens each part loses (empty: none)."""

    role: Role
    text: str
    parts: tuple[Part, ...]
    taken: tuple[int, ...] = ()

    @classmethod
    def whole(cls, turn: Turn) -> CutTurn:
        return cls(turn.role, turn.text, turn.parts)


def describe(tokenizer: PreTrainedTokenizerBase) -> str:
    """A tokenizer's name for messages, anywhere in a sentence."""
    return f"the tokenizer '{tokenizer.name_or_path}'" if tokenizer.name_or_path else "the tokenizer"


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """What the tokenizer itself adds in front of a text; often one id, for some tokenizers none."""
    whole = list(tokenizer("a")["input_ids"])
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    starts = [start for start in range(len(whole) - len(bare) + 1) if whole[start : start + len(bare)] == bare]
    return tuple(whole[: starts[0]]) if starts else ()
