"""Reads one line of a file of completions made elsewhere, and checks that it belongs to a prompt of ours.

    of a script          {"id": "7:good:0", "prompt_sha": ..., "completion": "Apple", "finish_reason": "stop"}
    of a batch service   {"custom_id": ..., "response": {"body": {"choices": [{"text": "Apple", ...}], "usage": {...}}}}

A line has an `id` or `custom_id`, a proof that it belongs to this prompt (`prompt_sha` or `sha`; a `custom_id` is one),
and the text. Whatever else it repeats from the prompt's line must be unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.errors import InputError, did_you_mean, shown
from coh_lightning.feedback.completions import Completion

ENDS = {
    **dict.fromkeys(("stop", "end", "eos", "eos_token", "stop_sequence", "end_turn"), "end"),
    **dict.fromkeys(("length", "max_tokens", "max_new_tokens"), "length"),
}
"""A server's reason for stopping -> `Completion.stop`."""


@dataclass(frozen=True)
class PendingCompletion:
    """A completion to be made elsewhere: its record, whose text is still empty, and the exact ids of its prompt."""

    completion: Completion
    prompt_ids: tuple[int, ...]
    lead: str = ""
    """The spaces that an output begins with in training, removed from the text (`ChainTokenizer.output_lead`)."""

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that change the text."""
        settings = self.completion.sampling
        return {name: value for name, value in settings.items() if name not in ("batch_size", "max_seconds")}

    @property
    def sha(self) -> str:
        """A hash of id, prompt, ids and settings, so it names this completion and no other."""
        one = self.completion
        parts = [one.id, one.prompt_sha, one.prompt, list(self.prompt_ids), self.sampling]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("ascii")).hexdigest()

    @property
    def custom_id(self) -> str:
        """At most 64 characters, the limit of batch services."""
        return f"coh-{self.sha[:40]}"


@dataclass(frozen=True)
class Answer:
    id: str
    text: str
    stop: str
    tokens: int | None
    prompt_tokens: int | None


def read_answer(
    line: object, wanted: Mapping[str, PendingCompletion], by_custom_id: Mapping[str, str], where: str
) -> Answer:
    """The answer in a line of either kind, parsed from JSON.

    Args:
        wanted: The completions to be made, by id.
        by_custom_id: Their ids by custom id.
        where: File and line, for messages.

    Raises InputError if it is not an answer to any of them.
    """
    if not isinstance(line, dict):
        raise InputError(f"{where}: the line is not a JSON object with an 'id', a 'prompt_sha' and a 'completion'.")
    if "response" in line or "error" in line:
        return _batch_answer(line, by_custom_id, where)
    if "id" not in line and "custom_id" not in line:
        raise InputError(f"{where}: the key 'id' is missing; it says which prompt was completed.")
    given = line.get("id", line.get("custom_id"))
    id = str(given) if "id" in line else by_custom_id.get(str(given), "")
    if id not in wanted:
        raise InputError(f"{where}: the completion {shown(given)} was not requested{did_you_mean(str(given), wanted)}")
    _prove(line, wanted[id], where)
    keys = [key for key in ("completion", "text") if key in line]
    if len(keys) != 1:
        found = "both 'completion' and 'text'" if keys else "neither 'completion' nor 'text'"
        raise InputError(f"{where}: the line of '{id}' has {found}; give its text as 'completion'.")
    counts = _usage(line) | line
    tokens = [_count(counts.get(name), name, where) for name in ("completion_tokens", "prompt_tokens")]
    return Answer(id, checked_text(line[keys[0]], keys[0], where), _stop(line, where), *tokens)


def _prove(line: Mapping[str, Any], blank: PendingCompletion, where: str) -> None:
    """What the line repeats of its prompt must be right and enough to recognize it."""
    one = blank.completion
    if not {"prompt_sha", "sha", "custom_id"} & line.keys():
        raise InputError(f"{where}: the line of '{one.id}' has no 'prompt_sha'; copy it from the prompt's line.")
    known = {"sha": blank.sha, "custom_id": blank.custom_id, "prompt_ids": list(blank.prompt_ids)}
    known |= {name: getattr(one, name) for name in ("prompt_sha", "prompt_id", "ask", "marker", "prompt")}
    for name, value in (known | {"sampling": blank.sampling}).items():
        if name in line and line[name] != value:
            raise InputError(
                f"{where}: the {name} of '{one.id}' is {shown(line[name])}, not {shown(value)}, so it is for another "
                "prompt or other settings; write the prompts again and complete those."
            )


def _batch_answer(line: Mapping[str, Any], by_custom_id: Mapping[str, str], where: str) -> Answer:
    """A line of a batch service's output. Its `id` is the service's own; `custom_id` is ours."""
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str):
        raise InputError(f"{where}: the key 'custom_id' is missing; it says which prompt was completed.")
    if custom_id not in by_custom_id:
        changed = "; its prompt or its settings have changed since the batch was written: write the batch again."
        ending = changed if custom_id.startswith("coh-") else did_you_mean(custom_id, by_custom_id)
        raise InputError(f"{where}: the completion {shown(custom_id)} was not requested{ending}")
    id = by_custom_id[custom_id]
    response = line.get("response") or {}
    status = response.get("status_code", 200) if isinstance(response, dict) else None
    body = response.get("body", response) if isinstance(response, dict) else None
    if line.get("error") or status != 200 or not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise InputError(
            f"{where}: the server failed at '{id}' (status {status!r:.20}: {shown(line.get('error') or body)}); retry."
        )
    if len(body["choices"]) != 1 or not isinstance(body["choices"][0], dict):
        raise InputError(
            f"{where}: there are {len(body['choices'])} choices for '{id}', not one; each sample has its own id."
        )
    choice, usage = body["choices"][0], _usage(body)
    message = choice.get("message")
    key, text = "text", choice.get("text")
    if isinstance(message, dict):
        key, text = "message.content", message.get("content")
    tokens = [_count(usage.get(name), f"usage.{name}", where) for name in ("completion_tokens", "prompt_tokens")]
    return Answer(id, checked_text(text, key, where), _stop(choice, where), *tokens)


def _stop(choice: Mapping[str, Any], where: str) -> str:
    """Why it ended. vLLM gives the text at which it stopped as `stop_reason` (a marker), or the id of a stop token."""
    reason = choice.get("finish_reason")
    if reason is None:
        return ""
    if not isinstance(reason, str) or reason not in ENDS:
        known = ", ".join(ENDS)
        raise InputError(f"{where}: finish_reason is {shown(reason)}, not one of {known}; complete the text again.")
    return "marker" if ENDS[reason] == "end" and isinstance(choice.get("stop_reason"), str) else ENDS[reason]


def _usage(body: Mapping[str, Any]) -> dict[str, Any]:
    usage = body.get("usage")
    return usage if isinstance(usage, dict) else {}


def _count(value: object, key: str, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be a number of tokens.")
    return value
