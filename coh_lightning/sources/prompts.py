"""When two prompts are the same prompt: the one rule by which splits, held-out shares and the removal of test prompts
go.
"""

from __future__ import annotations

import unicodedata

from coh_lightning.records import Feedback


def prompt_key(text: str) -> str:
    """The text without what people vary unawares: Unicode form (NFKC), case, and blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def feedback_key(feedback: Feedback) -> str:
    """The key of a record's prompt: its user and assistant turns; the system turn does not make another prompt of
    it.
    """
    return "\x1e".join(f"{turn.role}\x1f{prompt_key(turn.text)}" for turn in feedback.prompt if turn.role != "system")
