"""Completions made elsewhere (vLLM, any server of the OpenAI kind, a script): prompts go out as a file, completions
come back, matched by id and hash.

    write_prompts   prompts.jsonl   {"id": "7:good:0", "prompt_sha": ..., "prompt": ..., "prompt_ids": [...], "stop_token_ids": [...], "body": {...}, ...}
    write_batch     a.batch.jsonl    {"custom_id": ..., "method": "POST", "url": "/v1/completions", "body": {...}}

    read_completions takes   {"id": "7:good:0", "prompt_sha": ..., "completion": "Apple", "finish_reason": "stop"}          the line of a script
                      or     {"custom_id": ..., "response": {"body": {"choices": [{"text": "Apple", "finish_reason": "stop"}], "usage": {...}}}}    of a server

The prompt is given as token ids wherever a server takes them, since the ids of training are not those of the joint
text, and a server adds a BOS to text. All that a completion will be recorded with is known before it is written
(`Blank`), so nothing about it is taken from the file but the text, why it ended, and its length.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coh_lightning.checks import checked_text
from coh_lightning.completions import Completion
from coh_lightning.draws import key64
from coh_lightning.errors import InputError, did_you_mean, shown
from coh_lightning.jsonl import parse_json, read_lines, write_jsonl

ENDS = {
    **dict.fromkeys(("stop", "end", "eos", "eos_token", "stop_sequence", "end_turn"), "end"),
    **dict.fromkeys(("length", "max_tokens", "max_new_tokens"), "length"),
}
"""Why a server says that it stopped -> `Completion.stop`."""

BATCH = ".batch.jsonl"
"""Ends the name of a file of prompts that is to be the input of a batch service."""

PROBLEMS_SHOWN = 5
"""Bad lines that one message names."""


@dataclass(frozen=True)
class Blank:
    """One completion that is to be made elsewhere."""

    completion: Completion
    """Its whole record, the text still empty."""
    prompt_ids: tuple[int, ...]
    """The exact prompt, BOS and feedback sentence included."""
    lead: str = ""
    """The spaces that an output begins with in training, to be taken off the text (`ChainTokenizer.output_lead`)."""

    @property
    def sampling(self) -> dict[str, Any]:
        """The settings that change what is written."""
        return {
            name: value for name, value in self.completion.sampling.items() if name not in ("batch_size", "max_seconds")
        }

    @property
    def sha(self) -> str:
        """A hash of what is asked: id, prompt, ids and settings. It is what a completion's line proves itself by, so
        that none is taken for another's.
        """
        one = self.completion
        asked = json.dumps(
            [one.id, one.prompt_sha, one.prompt, list(self.prompt_ids), self.sampling], sort_keys=True, default=str
        )
        return hashlib.sha256(asked.encode("ascii")).hexdigest()

    @property
    def custom_id(self) -> str:
        """Its name in a batch: at most 64 characters, as batch services ask for."""
        return f"coh-{self.sha[:40]}"


@dataclass(frozen=True)
class _Line:
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.values)


def write_prompts(
    path: Path | str,
    blanks: Iterable[Blank],
    *,
    stop_token_ids: Sequence[int],
    stop: Sequence[str] = (),
    model: str | None = None,
) -> int:
    """One line for each completion that is wanted: its prompt as text and as ids, its settings, and `body`, the same as
    a request to `/v1/completions`.

    Args:
        stop_token_ids: ids that end an output.
        stop: texts that end an output, such as the feedback sentences of the method.
        model: what the server calls the model, for `body`.

    Returns:
        How many lines were written.

    Raises:
        InputError: two completions share an id.
    """
    return write_jsonl(path, [_Line(_prompt(blank, stop_token_ids, stop, model)) for blank in _by_id(blanks).values()])


def write_batch(
    path: Path | str, blanks: Iterable[Blank], *, stop_token_ids: Sequence[int], stop: Sequence[str] = (), model: str
) -> int:
    """The same as the input file of a batch service of the OpenAI kind that takes `/v1/completions`, with nothing in a
    line but what it asks for.

    See `write_prompts`. Each request must name its `model`; a batch service refuses one that doesn't.
    """
    lines = [
        _Line(
            {
                "custom_id": blank.custom_id,
                "method": "POST",
                "url": "/v1/completions",
                "body": _body(blank, stop_token_ids, stop, model),
            }
        )
        for blank in _by_id(blanks).values()
    ]
    return write_jsonl(path, lines)


def read_completions(
    path: Path | str,
    blanks: Iterable[Blank],
    *,
    count: Callable[[str], int],
    stop: Sequence[str] = (),
    system: str | None = None,
) -> list[Completion]:
    """The completions of a file, in the order of `blanks`, recorded as if they had been written here; `sampling` says
    that they were not (`backend`).

    A line has an `id` or `custom_id`, a proof that it belongs to this very prompt (`prompt_sha` or `sha`; a `custom_id`
    is one itself), and the text. Whatever else it holds of the prompt's line must be as it was written. A text is cut
    at the first of the `stop` texts (stop "marker"); tokens are those that the server counted, or are counted here
    where it didn't, or where the text was cut.

    Args:
        count: text -> tokens, for instance `lambda text: len(encoder.encode_texts([text])[0])`.
        system: the name of what wrote them, in place of the one in the blanks.

    Raises:
        InputError: lines that are broken, foreign, doubled, of another prompt or other settings, without text, or
            failed, each by file and line; completions that are missing, by id.
    """
    wanted = _by_id(blanks)
    by_custom_id = {blank.custom_id: id for id, blank in wanted.items()}
    found: dict[str, tuple[str, Completion]] = {}
    problems: list[str] = []
    more = 0
    unlike: list[str] = []
    unexplained = 0
    for where, line in read_lines(path):
        try:
            if isinstance(line, InputError):
                raise line
            answer = _answer(parse_json(line, where, unique=True), wanted, by_custom_id, where)
            blank = wanted[answer.id]
            if answer.id in found:
                raise InputError(
                    f"{where}: the completion '{answer.id}' is given again, first at {found[answer.id][0]}; keep one "
                    "of the two."
                )
            completion = _filled(blank, answer, count, stop, system)
            found[answer.id] = (where, Completion.from_json(completion.to_json(), where))
        except InputError as error:
            if len(problems) < PROBLEMS_SHOWN:
                problems.append(str(error))
            else:
                more += 1
            continue
        unexplained += not completion.stop
        if answer.prompt_tokens is not None and answer.prompt_tokens != len(blank.prompt_ids):
            unlike.append(f"'{answer.id}' was read as {answer.prompt_tokens} tokens and has {len(blank.prompt_ids)}")
    missing = [id for id in wanted if id not in found]
    if missing and not problems:
        some = ", ".join(repr(id) for id in missing[:PROBLEMS_SHOWN])
        problems.append(
            f"{path}: {len(missing)} of {len(wanted)} completions are missing "
            f"({some}{', ...' if len(missing) > PROBLEMS_SHOWN else ''}); write them too."
        )
    if problems:
        raise InputError("\n".join(problems) + (f"\n(and {more:,} more lines like these)" if more else ""))
    if unlike:
        warnings.warn(
            f"{path}: the server read {len(unlike)} of {len(found)} prompts otherwise than they are ({unlike[0]}): a "
            "BOS added twice, a chat template of its own, or "
            "another tokenizer. Give it the prompt as ids, as in `body`.",
            stacklevel=2,
        )
    if unexplained:
        warnings.warn(
            f"{path}: {unexplained} of {len(found)} completions don't say why they ended (finish_reason); none of "
            "these counts as ended.",
            stacklevel=2,
        )
    return [found[id][1] for id in wanted]


# ----------------------------------------------------------------------------------------------------------------
# writing


def _by_id(blanks: Iterable[Blank]) -> dict[str, Blank]:
    every: dict[str, Blank] = {}
    for blank in blanks:
        if every.setdefault(blank.completion.id, blank) is not blank:
            raise InputError(
                f"Two completions that are to be made elsewhere have the id '{blank.completion.id}'; ids must differ."
            )
    return every


def _prompt(blank: Blank, stop_token_ids: Sequence[int], stop: Sequence[str], model: str | None) -> dict[str, Any]:
    one = blank.completion
    return {
        "id": one.id,
        "custom_id": blank.custom_id,
        "prompt_id": one.prompt_id,
        "prompt_sha": one.prompt_sha,
        "sha": blank.sha,
        "ask": one.ask,
        "marker": one.marker,
        "prompt": one.prompt,
        "prompt_ids": list(blank.prompt_ids),
        "stop": list(stop),
        "stop_token_ids": list(stop_token_ids),
        "sampling": blank.sampling,
        "body": _body(blank, stop_token_ids, stop, model),
    }


def _body(blank: Blank, stop_token_ids: Sequence[int], stop: Sequence[str], model: str | None) -> dict[str, Any]:
    """A request to `/v1/completions`. `stop_token_ids` and `top_k` are vLLM's own; they are left out where they say
    nothing.
    """
    one = blank.completion
    sampling = {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "top_k": 0, **one.sampling}
    body: dict[str, Any] = {} if model is None else {"model": model}
    body |= {
        "prompt": list(blank.prompt_ids),
        "max_tokens": sampling["max_new_tokens"],
        "temperature": sampling["temperature"],
        "n": 1,
    }
    if sampling["temperature"]:
        # a seed for each completion: with one for all, samples of a prompt would be the same text
        body |= {"top_p": sampling["top_p"], "seed": key64(one.seed, "elsewhere", one.id) % 2**31}
        if sampling["top_k"]:
            body["top_k"] = sampling["top_k"]
    if stop:
        body["stop"] = list(stop)
    if stop_token_ids:
        body["stop_token_ids"] = list(stop_token_ids)
    return body


# ----------------------------------------------------------------------------------------------------------------
# reading


@dataclass(frozen=True)
class _Answer:
    """What a line says."""

    id: str
    text: str
    stop: str
    tokens: int | None
    prompt_tokens: int | None


def _answer(line: object, wanted: Mapping[str, Blank], by_custom_id: Mapping[str, str], where: str) -> _Answer:
    if not isinstance(line, dict):
        raise InputError(
            f"{where}: the line is no JSON object; a completion has an 'id', a 'prompt_sha' and a 'completion'."
        )
    if "response" in line or "error" in line:
        return _served(line, by_custom_id, where)
    if "id" not in line and "custom_id" not in line:
        raise InputError(f"{where}: the key 'id' is missing; it says which prompt was completed.")
    given = line.get("id", line.get("custom_id"))
    id = str(given) if "id" in line else by_custom_id.get(str(given), "")
    if id not in wanted:
        raise InputError(f"{where}: nobody asked for the completion {shown(given)}{did_you_mean(str(given), wanted)}")
    _prove(line, wanted[id], where)
    keys = [key for key in ("completion", "text") if key in line]
    if len(keys) != 1:
        raise InputError(
            f"{where}: the line of '{id}' has {'both' if keys else 'neither'} 'completion' "
            f"{'and' if keys else 'nor'} 'text'; give its text as 'completion'."
        )
    usage = _usage(line)
    return _Answer(
        id,
        checked_text(line[keys[0]], keys[0], where),
        _stop(line, where),
        _whole(line.get("completion_tokens", usage.get("completion_tokens")), "completion_tokens", where),
        _whole(line.get("prompt_tokens", usage.get("prompt_tokens")), "prompt_tokens", where),
    )


def _prove(line: Mapping[str, Any], blank: Blank, where: str) -> None:
    """What the line says of its prompt must be so, and it must say enough."""
    one = blank.completion
    if not {"prompt_sha", "sha", "custom_id"} & line.keys():
        raise InputError(
            f"{where}: the line of '{one.id}' has no 'prompt_sha', so nothing says that it belongs to this prompt; "
            "copy it from the prompt's line."
        )
    known = {"sha": blank.sha, "custom_id": blank.custom_id, "prompt_ids": list(blank.prompt_ids)}
    known |= {name: getattr(one, name) for name in ("prompt_sha", "prompt_id", "ask", "marker", "prompt")} | {
        "sampling": blank.sampling
    }
    for name, value in known.items():
        if name in line and line[name] != value:
            raise InputError(
                f"{where}: the {name} of '{one.id}' is {shown(line[name])}, but {shown(value)} is asked for; it is "
                "the completion of another prompt or was made under "
                "other settings: write the prompts again and complete those."
            )


def _served(line: Mapping[str, Any], by_custom_id: Mapping[str, str], where: str) -> _Answer:
    """A line of the output file of a batch. Its `id` is the service's own; `custom_id` is ours."""
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str):
        raise InputError(f"{where}: the key 'custom_id' is missing; it says which prompt was completed.")
    if custom_id not in by_custom_id:
        ours = custom_id.startswith("coh-")
        raise InputError(
            f"{where}: nobody asked for the completion {shown(custom_id)}"
            + (
                "; its prompt or its settings have changed since the batch was written: write the batch again."
                if ours
                else did_you_mean(custom_id, by_custom_id)
            )
        )
    id = by_custom_id[custom_id]
    response = line.get("response") or {}
    status = response.get("status_code", 200) if isinstance(response, dict) else None
    body = response.get("body", response) if isinstance(response, dict) else None
    if line.get("error") or status != 200 or not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise InputError(
            f"{where}: the server failed at '{id}' (status {status!r:.20}: {shown(line.get('error') or body)}); "
            "complete it again."
        )
    if len(body["choices"]) != 1 or not isinstance(body["choices"][0], dict):
        raise InputError(
            f"{where}: there are {len(body['choices'])} choices for '{id}', which asks for one; samples have ids of "
            "their own."
        )
    choice = body["choices"][0]
    message = choice.get("message")
    key, text = (
        ("message.content", message.get("content")) if isinstance(message, dict) else ("text", choice.get("text"))
    )
    usage = _usage(body)
    tokens = [_whole(usage.get(name), f"usage.{name}", where) for name in ("completion_tokens", "prompt_tokens")]
    return _Answer(id, checked_text(text, key, where), _stop(choice, where), tokens[0], tokens[1])


def _filled(
    blank: Blank, answer: _Answer, count: Callable[[str], int], stop: Sequence[str], system: str | None
) -> Completion:
    text, ended, tokens = answer.text.removeprefix(blank.lead), answer.stop, answer.tokens
    first = min((place for marker in stop if marker and (place := text.find(marker)) >= 0), default=None)
    if first is not None:
        text, ended, tokens = text[:first], "marker", None
    if ended == "marker":
        text = text.rstrip()  # the blank lines before the next feedback sentence
    if tokens is None:
        tokens = count(blank.lead + text) + (ended == "end")  # the end token counts
    sampling = {**blank.completion.sampling, "backend": "elsewhere"}
    return replace(
        blank.completion,
        text=text,
        stop=ended,
        completion_tokens=tokens,
        sampling=sampling,
        system=system or blank.completion.system,
    )


def _stop(choice: Mapping[str, Any], where: str) -> str:
    """Why it ended. vLLM says with which text (`stop_reason`) where it was not a token: that is a marker, not an
    end.
    """
    reason = choice.get("finish_reason")
    if reason is None:
        return ""
    if not isinstance(reason, str) or reason not in ENDS:
        raise InputError(
            f"{where}: finish_reason is {shown(reason)}, so the text may not be whole; complete it again (known: "
            f"{', '.join(ENDS)})."
        )
    return "marker" if ENDS[reason] == "end" and isinstance(choice.get("stop_reason"), str) else ENDS[reason]


def _usage(body: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = body.get("usage")
    return usage if isinstance(usage, dict) else {}


def _whole(value: object, key: str, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InputError(f"{where}: {key} is {shown(value)}; it must be a number of tokens.")
    return value
