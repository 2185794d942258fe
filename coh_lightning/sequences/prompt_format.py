"""The format of a prompt, `plain` (paragraphs) or `chat` (the tokenizer's own chat template), and the segments that a
chain's text consists of.

Each segment is tokenized on its own, so that a loss weight never straddles a token:

    plain   <s>|Name a fruit.\\n\\n|A good answer:\\n|Apple|</s>|\\n\\nA bad answer:\\n|Stone|</s>
            bos|prompt          |marker         |good |end |marker            |bad  |end

    chat    <|user|>\\n|Name a fruit.\\n\\n|A good answer:|<|end|>\\n<|bot|>\\n|Apple|<|end|>|   and for the second link
            prompt    |prompt          |marker        |prompt           |good |end    |
            \\n<|user|>\\n|A bad answer:|<|end|>\\n<|bot|>\\n|Stone|<|end|>
            marker      |marker       |marker           |bad  |end

Where two segments meet, one rule holds in both formats, because it keeps the ids those of the joint text under nearly
all tokenizers: line ends belong to the segment before them, spaces to the one after them (tokenizers glue a space to
the word that follows).
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
"""Where a segment begins: at the head of the document, right after a special token, in the middle of text. Some
tokenizers add a space in the first two.
"""

BLANK_LINE = "\n\n"
"""Between the turns of a plain conversation, and between system text and user text where a template has no system role.
"""


@dataclass(frozen=True)
class PromptFormat:
    """The settings of a format. They are stored in the checkpoint: training and inference share them."""

    kind: Kind = "plain"
    marker_in: MarkerIn = "user"
    """Chat only: the feedback sentence ends the last user turn, or stands in the system turn."""
    before_marker: str = BLANK_LINE
    before_output: str = "\n"
    """Plain only: a chat template has its own. Spaces at its end become the first characters of the output."""
    user_label: str = "User:"
    """Plain only, and only in conversations of several turns: a single user turn has no label."""
    assistant_label: str = "Assistant:"
    kept_tokens: tuple[str, ...] = ()
    """Added tokens (`<think>`, `<tool_call>`) that stay tokens in people's texts, because the model itself writes them;
    all others are spelled out.
    """

    def __post_init__(self) -> None:
        for key, value, known in (
            ("kind", self.kind, get_args(Kind)),
            ("marker_in", self.marker_in, get_args(MarkerIn)),
        ):
            if value not in known:
                raise InputError(
                    f"The prompt format has {key}: '{value}', known are {' and '.join(known)}"
                    + did_you_mean(value, known)
                )
        object.__setattr__(self, "kept_tokens", tuple(self.kept_tokens))  # a list when read from a checkpoint


class CutRange(NamedTuple):
    """Characters [start, stop) of a segment's text that may lose tokens, from which side, and how many they lose."""

    start: int
    stop: int
    side: Literal["front", "back"]
    tokens: int


class Segment(NamedTuple):
    """A piece of a chain's text that is tokenized on its own."""

    text: str
    special: bool = False
    """A piece of a template: special tokens in it are meant. In people's text (False) they are spelled out."""
    learned: float = 0.0
    unlearned: float = 0.0
    kind: str = "prompt"
    """prompt, marker, end, or the kind of the link whose output it is."""
    place: int = -1
    """Index of the link in its chain; -1 for the prompt."""
    at: At = "mid"
    more: bool = False
    """Text that begins with no space follows: it decides how line ends at the end of this segment are tokenized. Never
    before an output, where the prompt of inference ends."""
    cut: tuple[CutRange, ...] = ()


class CutTurn(NamedTuple):
    """A turn of the prompt after truncation: its text is whole, and `taken` says how many tokens each part loses
    (empty: none).
    """

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
