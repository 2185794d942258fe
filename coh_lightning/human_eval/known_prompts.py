"""The prompts that completions and records say were answered, by their hashes.

A study shows raters one text; if that is not the prompt itself (a conversation, a system turn), the completions that
the study was made from say what its messages are, and records also which part of them truncation may cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import SystemOutput, Turns, read_output_lines, read_prompt_value, turns_sha
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.feedback.records import Feedback, prompt_sha
from coh_lightning.feedback.turns import Role, Turn, check_prompt, plain_turn, read_prompt
from coh_lightning.human_eval.votes import Prompt

ANSWER = "answer"
"""The noun for a completion where nothing says another."""


class KnownPrompts:
    """The lines of completions files, by prompt id; and the prompts of these and of records, by their hashes."""

    def __init__(self, paths: Sequence[Path], records: Sequence[Path], task: str | None) -> None:
        self.by_id: dict[str, list[SystemOutput]] = {}
        self.lines: dict[Path, list[tuple[str, SystemOutput, dict[str, Any]]]] = {}
        self._task = task
        self._prompts: dict[tuple[str, str], tuple[tuple[Turn, ...], str]] = {}
        """(hash, as people read it) -> prompt, task. Without the text, a dialogue would pass for its first turn."""
        for path in records:  # first: they say what truncation may cut
            for record in read_jsonl(path, Feedback):
                asked = (prompt_sha(record), read_prompt(record.prompt))
                self._prompts.setdefault(asked, (record.prompt, record.task))
        for path in paths:
            self.lines[path] = list(read_output_lines(path, dialogues=False))
            for _, output, line in self.lines[path]:
                self.by_id.setdefault(output.id, []).append(output)
                turns = messages_of(line, output)
                if turns is not None:
                    for sha in output.shas:
                        self._prompts.setdefault((sha, output.prompt), (as_turns(turns), _task(line)))

    def prompt(self, id: str, shas: Sequence[str], shown: str, where: str, task: str = ANSWER) -> Prompt:
        """The prompt of these hashes; without completions, what raters read, if its hash says that it is the prompt.

        Args:
            task: the noun for a completion, where no completions say it.

        Raises:
            InputError: neither is known.
        """
        found = next((self._prompts[sha, shown] for sha in shas if (sha, shown) in self._prompts), None)
        if found is None and turns_sha([("user", shown)]) in shas:
            found = (as_turns([("user", shown)]), task)
        if found is None:
            fact = f"the prompt '{id}' has other messages than the text that raters read"
            remedy = "give the completions that were compared: --completions FILE"
            if self._prompts:
                fact += ", and no line of the completions and prompts given has it"
                remedy += " (of dialogues that were rated whole no records can be made)"
            raise InputError(f"{where}: {fact}; {remedy}.")
        turns, noun = found
        check_prompt(turns, f"{where} (prompt '{id}')")
        return Prompt(id, turns, self._task or noun)


def messages_of(line: Mapping[str, Any], output: SystemOutput) -> Turns | None:
    """The prompt of a line as messages, without the feedback sentence; None if the line has only its text."""
    if line.get("messages"):
        return read_prompt_value(line["messages"], "messages", output.where)[1]
    turns = [("user", output.prompt)]
    if not output.explicit:
        turns = list(read_prompt_value(line["prompt"], "prompt", output.where)[1])
    sha = line.get("prompt_sha")
    return turns if not isinstance(sha, str) or sha == turns_sha(turns) else None


def as_turns(messages: Turns) -> tuple[Turn, ...]:
    return tuple(plain_turn(cast(Role, role), text) for role, text in messages)


def _task(line: Mapping[str, Any]) -> str:
    return line["task"] if isinstance(line.get("task"), str) and line["task"] else ANSWER
