"""Completions made elsewhere (vLLM, any OpenAI-compatible server, a script): prompts go out as a file, completions come
back and are matched by id and hash.

    write_prompts   prompts.jsonl    {"id": "7:good:0", "prompt_sha": ..., "prompt_ids": [...], "body": {...}, ...}
                    a.batch.jsonl    {"custom_id": ..., "method": "POST", "url": "/v1/completions", "body": {...}}
    read_completions                 lines of a script, or of a batch service's output (answers.py)

The prompt is given as token ids: the ids of training are not those of the joined text, and a server adds a BOS to text.
A completion's record is complete before it is written, except for the text, why it ended, and its length
(`PendingCompletion`), so nothing else is read from the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coh_lightning.errors import InputError
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import parse_json, read_lines, write_jsonl
from coh_lightning.generation.answers import Answer, PendingCompletion, read_answer
from coh_lightning.rng import key64

BATCH = ".batch.jsonl"
"""How the name of a file for a batch service ends."""

PROBLEMS_SHOWN = 5
"""Bad lines that one message names."""


class _Line(dict[str, Any]):
    def to_json(self) -> dict[str, Any]:
        return self


def write_prompts(
    path: Path | str,
    blanks: Iterable[PendingCompletion],
    *,
    stop_token_ids: Sequence[int],
    stop: Sequence[str] = (),
    model: str | None = None,
) -> int:
    """Writes a line for each completion: its prompt as text and as ids, its settings, and `body`, the same as a request
    to `/v1/completions`. A file named *.batch.jsonl is the input of an OpenAI-compatible batch service instead.

    Args:
        stop_token_ids: Ids that end an output.
        stop: Texts that end an output, such as the feedback sentences of the method.
        model: The server's name for the model; batch services require it.

    Returns the number of lines. Raises InputError if two completions share an id.
    """
    lines: list[_Line] = []
    for id, blank in _by_id(blanks).items():
        one, body = blank.completion, _body(blank, stop_token_ids, stop, model)
        line = _Line(custom_id=blank.custom_id, method="POST", url="/v1/completions", body=body)
        if not str(path).endswith(BATCH):
            line = _Line(
                id=id,
                custom_id=blank.custom_id,
                prompt_id=one.prompt_id,
                prompt_sha=one.prompt_sha,
                sha=blank.sha,
                ask=one.ask,
                marker=one.marker,
                prompt=one.prompt,
                prompt_ids=list(blank.prompt_ids),
                stop=list(stop),
                stop_token_ids=list(stop_token_ids),
                sampling=blank.sampling,
                body=body,
            )
        lines.append(line)
    return write_jsonl(path, lines)


def read_completions(
    path: Path | str,
    blanks: Iterable[PendingCompletion],
    *,
    count: Callable[[str], int],
    stop: Sequence[str] = (),
    system: str | None = None,
) -> list[Completion]:
    """The completions of a file, in the order of `blanks`, recorded as if they had been written here, except that
    `sampling` says `backend: elsewhere`.

    A text is cut at the first of the `stop` texts (stop "marker"). Tokens are those that the server counted; they are
    counted here if it didn't, or if the text was cut.

    Args:
        count: text -> tokens, for instance `lambda text: len(encoder.encode_texts([text])[0])`.
        system: Name of what wrote them, instead of the one in the blanks.

    Raises:
        InputError: lines that are broken, unknown, repeated, of another prompt or other settings, without text, or
            failed, each by file and line; completions that are missing, by id.
    """
    wanted = _by_id(blanks)
    by_custom_id = {blank.custom_id: id for id, blank in wanted.items()}
    found: dict[str, tuple[str, Completion]] = {}
    problems: list[str] = []
    retokenized: list[str] = []
    for where, line in read_lines(path):
        try:
            if isinstance(line, InputError):
                raise line
            answer = read_answer(parse_json(line, where, unique=True), wanted, by_custom_id, where)
            blank = wanted[answer.id]
            if answer.id in found:
                first = found[answer.id][0]
                raise InputError(f"{where}: the completion '{answer.id}' is given again, first at {first}; keep one.")
            completion = _filled(blank, answer, count, stop, system)
            found[answer.id] = (where, Completion.from_json(completion.to_json(), where))
        except InputError as error:
            problems.append(str(error))
            continue
        if answer.prompt_tokens is not None and answer.prompt_tokens != len(blank.prompt_ids):
            retokenized.append(f"'{answer.id}' was read as {answer.prompt_tokens} tokens, not {len(blank.prompt_ids)}")
    missing = [repr(id) for id in wanted if id not in found]
    if missing and not problems:
        some = ", ".join([*missing[:PROBLEMS_SHOWN], *(["..."] if len(missing) > PROBLEMS_SHOWN else [])])
        problems = [f"{path}: {len(missing)} of {len(wanted)} completions are missing ({some}); write them too."]
    if problems:
        more = len(problems) - PROBLEMS_SHOWN
        rest = [f"(and {more:,} more lines like these)"] if more > 0 else []
        raise InputError("\n".join(problems[:PROBLEMS_SHOWN] + rest))
    if retokenized:
        warnings.warn(
            f"{path}: the server tokenized {len(retokenized)} of {len(found)} prompts differently ({retokenized[0]}): "
            "it added a second BOS, applied a chat template, or has another tokenizer. Send the ids, as in `body`.",
            stacklevel=2,
        )
    if unexplained := sum(not completion.stop for _, completion in found.values()):
        warnings.warn(
            f"{path}: {unexplained} of {len(found)} completions don't say why they ended (finish_reason); they don't "
            "count as ended.",
            stacklevel=2,
        )
    return [found[id][1] for id in wanted]


def _by_id(blanks: Iterable[PendingCompletion]) -> dict[str, PendingCompletion]:
    every: dict[str, PendingCompletion] = {}
    for blank in blanks:
        id = blank.completion.id
        if every.setdefault(id, blank) is not blank:
            raise InputError(f"Two completions to be made elsewhere have the id '{id}'; ids must differ.")
    return every


def _body(
    blank: PendingCompletion, stop_token_ids: Sequence[int], stop: Sequence[str], model: str | None
) -> dict[str, Any]:
    """A request to `/v1/completions`, without vLLM's own `stop_token_ids` and `top_k` where they have no effect."""
    one = blank.completion
    sampling = {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "top_k": 0, **one.sampling}
    limits = {"max_tokens": sampling["max_new_tokens"], "temperature": sampling["temperature"], "n": 1}
    body = {"prompt": list(blank.prompt_ids), **limits} | ({} if model is None else {"model": model})
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
