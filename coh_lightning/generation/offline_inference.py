"""Completions made elsewhere (vLLM, any OpenAI-compatible server, a script): prompts go out as a file, completions come
back, matched by id and hash.

    write_prompts   prompts.jsonl    {"id": "7:good:0", "prompt_sha": ..., "prompt_ids": [...], "body": {...}, ...}
    write_batch     a.batch.jsonl    {"custom_id": ..., "method": "POST", "url": "/v1/completions", "body": {...}}
    read_completions                 lines of a script, or of a batch service's output (answers.py)

The prompt is given as token ids: the ids of training are not those of the joint text, and a server adds a BOS to text.
Everything that a completion will be recorded with is known before it is written (`PendingCompletion`), so the file is read for
nothing but the text, why it ended, and its length.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import parse_json, read_lines, write_jsonl
from coh_lightning.generation.answers import Answer, PendingCompletion, read_answer
from coh_lightning.rng import key64

BATCH = ".batch.jsonl"
"""Ending of a prompts file's name that makes it the input of a batch service."""

PROBLEMS_SHOWN = 5
"""Bad lines that one message names."""


@dataclass(frozen=True)
class _Line:
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.values)


def write_prompts(
    path: Path | str,
    blanks: Iterable[PendingCompletion],
    *,
    stop_token_ids: Sequence[int],
    stop: Sequence[str] = (),
    model: str | None = None,
) -> int:
    """Writes one line for each wanted completion: its prompt as text and as ids, its settings, and `body`, the same as
    a request to `/v1/completions`.

    Args:
        stop_token_ids: Ids that end an output.
        stop: Texts that end an output, such as the feedback sentences of the method.
        model: The server's name for the model, for `body`.

    Returns:
        The number of lines.

    Raises:
        InputError: two completions share an id.
    """
    return write_jsonl(path, [_Line(_prompt(blank, stop_token_ids, stop, model)) for blank in _by_id(blanks).values()])


def write_batch(
    path: Path | str,
    blanks: Iterable[PendingCompletion],
    *,
    stop_token_ids: Sequence[int],
    stop: Sequence[str] = (),
    model: str,
) -> int:
    """The same as the input of an OpenAI-compatible batch service that takes `/v1/completions`, with nothing else in a
    line. A batch service refuses a request that doesn't name its `model`.
    """
    request = {"method": "POST", "url": "/v1/completions"}
    lines = [
        _Line({"custom_id": blank.custom_id, **request, "body": _body(blank, stop_token_ids, stop, model)})
        for blank in _by_id(blanks).values()
    ]
    return write_jsonl(path, lines)


def read_completions(
    path: Path | str,
    blanks: Iterable[PendingCompletion],
    *,
    count: Callable[[str], int],
    stop: Sequence[str] = (),
    system: str | None = None,
) -> list[Completion]:
    """The completions of a file, in the order of `blanks`, recorded as if they had been written here; `sampling` says
    that they were not (`backend`).

    A text is cut at the first of the `stop` texts (stop "marker"). Tokens are those that the server counted; they are
    counted here if it didn't, or if the text was cut.

    Args:
        count: text -> tokens, for instance `lambda text: len(encoder.encode_texts([text])[0])`.
        system: Name of what wrote them, in place of the one in the blanks.

    Raises:
        InputError: lines that are broken, unknown, repeated, of another prompt or other settings, without text, or
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
            answer = read_answer(parse_json(line, where, unique=True), wanted, by_custom_id, where)
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
            f"{path}: the server tokenized {len(unlike)} of {len(found)} prompts differently ({unlike[0]}): it added a "
            "second BOS, applied a chat template of its own, or has another tokenizer. Give it the prompt as ids, as "
            "in `body`.",
            stacklevel=2,
        )
    if unexplained:
        warnings.warn(
            f"{path}: {unexplained} of {len(found)} completions don't say why they ended (finish_reason); none of "
            "these counts as ended.",
            stacklevel=2,
        )
    return [found[id][1] for id in wanted]


def _by_id(blanks: Iterable[PendingCompletion]) -> dict[str, PendingCompletion]:
    every: dict[str, PendingCompletion] = {}
    for blank in blanks:
        if every.setdefault(blank.completion.id, blank) is not blank:
            raise InputError(
                f"Two completions that are to be made elsewhere have the id '{blank.completion.id}'; ids must differ."
            )
    return every


def _prompt(
    blank: PendingCompletion, stop_token_ids: Sequence[int], stop: Sequence[str], model: str | None
) -> dict[str, Any]:
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


def _body(
    blank: PendingCompletion, stop_token_ids: Sequence[int], stop: Sequence[str], model: str | None
) -> dict[str, Any]:
    """A request to `/v1/completions`. `stop_token_ids` and `top_k` are vLLM's own; they are left out when they have no
    effect.
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


def _filled(
    blank: PendingCompletion, answer: Answer, count: Callable[[str], int], stop: Sequence[str], system: str | None
) -> Completion:
    text, ended, tokens = answer.text.removeprefix(blank.lead), answer.stop, answer.tokens
    first = min((place for marker in stop if marker and (place := text.find(marker)) >= 0), default=None)
    if first is not None:
        text, ended, tokens = text[:first], "marker", None
    if ended == "marker":
        text = text.rstrip()  # the blank lines before the next feedback sentence
    if tokens is None:
        tokens = count(blank.lead + text) + (ended == "end")  # the end token counts
    return replace(
        blank.completion,
        text=text,
        stop=ended,
        completion_tokens=tokens,
        sampling={**blank.completion.sampling, "backend": "elsewhere"},
        system=system or blank.completion.system,
    )
