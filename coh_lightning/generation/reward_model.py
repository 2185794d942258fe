"""A reward model of transformers (sequence classification) as a scorer. Imports torch only when a model is built."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from coh_lightning.errors import InputError, first_line
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.turns import Part, Role, Turn, read_prompt
from coh_lightning.words import holds

if TYPE_CHECKING:
    import torch

Row = dict[str, list[int]]
"""The tokenizer's output for one completion: input_ids, attention_mask, perhaps token_type_ids."""


class RewardModel:
    """Scores completions with a sequence classification model: one label gives the score `reward`, several give one
    score each, under their names. The feedback sentence is never part of what is scored.

    A tokenizer with a chat template gets the prompt's messages and the completion as the assistant's; one without gets
    the two as a pair of texts. Scores are the model's raw outputs, or probabilities where `problem_type` in its config
    is `single_label_classification` (they sum to 1) or `multi_label_classification` (one each).

    A completion's score doesn't depend on its batch. The first batch of unequal lengths tests whether the architecture
    allows padding on the right; if not, only completions of equal length share a batch.

    What is longer than the model's positions is cut as training prompts are: whole old turns first, then the front of
    the last turn, then the end of the completion. `prompts_cut` and `completions_cut` count them; the first cut gives a
    warning.

    Args:
        name: Name on the hub or folder.
        batch_size: Completions in a forward pass.
        max_tokens: Cut to this many tokens; None: as many as the model has positions for.
        device: None: a GPU if there is one.
        trust_remote_code: Run code that comes with the model. Only for models that you trust.

    Raises:
        InputError: the model can't be loaded, has no trained classification head or two labels of one name, or its
            tokenizer is not a fast one.
    """

    batched = True

    def __init__(
        self,
        name: str | Path,
        *,
        batch_size: int = 16,
        dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
        max_tokens: int | None = None,
        device: torch.device | str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        import torch

        if batch_size < 1 or (max_tokens is not None and max_tokens < 1):
            given = f"batch_size is {batch_size} and its max_tokens {max_tokens}"
            raise InputError(f"A reward model's {given}; both must be at least 1.")
        self.name = str(name)
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer, model = _load(self.name, getattr(torch, dtype), trust_remote_code)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.labels = _labels(self.model.config, self.name)
        limits = (max_tokens, _positions(self.model), self.tokenizer.model_max_length)
        self.max_tokens = min(limit for limit in limits if limit is not None)
        self.prompts_cut = 0
        self.completions_cut = 0
        self._accepted = set(inspect.signature(self.model.forward).parameters)
        self._can_pad: bool | None = None  # not tested yet

    def __call__(self, completions: Sequence[Completion]) -> list[dict[str, float]]:
        """Raises InputError if a prompt is known only with its feedback sentence, or the template refuses it."""
        before = self.prompts_cut + self.completions_cut
        rows = [self.tokenize(one) for one in completions]
        if before == 0 < self.prompts_cut + self.completions_cut:
            warnings.warn(
                f"The reward model '{self.name}' reads at most {self.max_tokens} tokens: {self.prompts_cut} prompts "
                f"and {self.completions_cut} completions of the first {len(rows)} were cut.",
                stacklevel=2,
            )
        return self.score_rows(rows)

    def score_rows(self, rows: Sequence[Row]) -> list[dict[str, float]]:
        """The scores of tokenized completions, each after its prompt."""
        outputs: dict[int, list[float]] = {}
        waiting = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
        while waiting:
            batch = self._without_harmful_padding(waiting[: self.batch_size], rows)
            outputs.update(zip(batch, self._run([rows[index] for index in batch]), strict=True))
            waiting = waiting[len(batch) :]
        return [dict(zip(self.labels, outputs[index], strict=True)) for index in range(len(rows))]

    def tokenize(self, completion: Completion) -> Row:
        """A completion after its prompt, cut to `max_tokens`."""
        turns, text, cut = list(prompt_turns(completion)), completion.text, [False, False]
        first = 1 if turns[0].role == "system" else 0
        row = self._encode(turns, text, completion)
        while (over := len(row["input_ids"]) - self.max_tokens) > 0:
            next_user = next((index for index in range(first + 1, len(turns)) if turns[index].role == "user"), None)
            if next_user is not None:
                turns = turns[:first] + turns[next_user:]
                cut[0] = True
            elif turns[-1].text:
                turns[-1] = Turn(turns[-1].role, (Part(self._shorten(turns[-1].text, over, front=True)),))
                cut[0] = True
            elif text:
                text = self._shorten(text, over, front=False)
                cut[1] = True
            else:
                what = f"reads {self.max_tokens} tokens, but its chat template alone takes {len(row['input_ids'])}"
                raise InputError(f"The reward model '{self.name}' {what}; raise max_tokens.")
            row = self._encode(turns, text, completion)
        self.prompts_cut += cut[0]
        self.completions_cut += cut[1]
        return row

    def _encode(self, prompt: Sequence[Turn], text: str, completion: Completion) -> Row:
        if self.tokenizer.chat_template is None:
            found = self.tokenizer(read_prompt(prompt), text, verbose=False)
        else:
            from jinja2 import TemplateError

            messages = [{"role": turn.role, "content": turn.text} for turn in prompt]
            messages.append({"role": "assistant", "content": text})
            try:
                rendered = self.tokenizer.apply_chat_template(messages, tokenize=False)
            except TemplateError as error:
                what = f"The chat template of the reward model '{self.name}' refuses the completion '{completion.id}'"
                raise InputError(f"{what}: {error}.") from error
            # the template has added the special tokens already
            found = self.tokenizer(rendered, add_special_tokens=False, verbose=False)
        return {key: list(value) for key, value in found.items()}

    def _shorten(self, text: str, tokens: int, *, front: bool) -> str:
        """The text without its first or last tokens, shorter by at least one character."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = found["offset_mapping"]
        if tokens >= len(offsets):
            return ""
        return text[max(offsets[tokens][0], 1) :] if front else text[: min(offsets[-tokens][0], len(text) - 1)]

    def _without_harmful_padding(self, batch: list[int], rows: Sequence[Row]) -> list[int]:
        """The batch if padding changes no score, else its longest rows, which need none. The first time, the shortest
        row, which has the most padding, is run alone to compare.
        """
        longest, shortest = len(rows[batch[0]]["input_ids"]), len(rows[batch[-1]]["input_ids"])
        if longest == shortest:
            return batch
        if self._can_pad is None:
            together, alone = self._run([rows[index] for index in batch])[-1], self._run([rows[batch[-1]]])[0]
            eps = 1e-4 if self.model.dtype.itemsize > 2 else 0.05
            pairs = zip(together, alone, strict=True)
            self._can_pad = all(math.isclose(a, b, rel_tol=eps, abs_tol=eps) for a, b in pairs)
            if not self._can_pad:
                warnings.warn(
                    f"The reward model '{self.name}' ({self.model.config.model_type}) scores a padded row differently, "
                    "so only completions of equal length share a batch, which is slower.",
                    stacklevel=3,
                )
        return batch if self._can_pad else [index for index in batch if len(rows[index]["input_ids"]) == longest]

    def _run(self, rows: Sequence[Row]) -> list[list[float]]:
        import torch

        config = self.model.config.get_text_config()
        pad = config.pad_token_id
        if pad is None or not 0 <= pad < config.vocab_size:
            # the model reads the score at the last token that is not the pad token: any id works that ends no row
            last = {row["input_ids"][-1] for row in rows}
            pad = next(number for number in range(config.vocab_size) if number not in last)
        longest = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": pad, "attention_mask": 0, "token_type_ids": 0}
        inputs = {
            key: torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows], device=self.device)
            for key, value in fill.items()
            if key in self._accepted and key in rows[0]
        }
        was, config.pad_token_id = config.pad_token_id, pad
        try:
            with torch.no_grad():
                logits = self.model(**inputs).logits
        finally:
            config.pad_token_id = was
        logits = logits.reshape(len(rows), -1).double()
        kind = self.model.config.problem_type
        if kind == "single_label_classification" and len(self.labels) > 1:
            logits = logits.softmax(dim=-1)
        elif kind == "multi_label_classification":
            logits = logits.sigmoid()
        found: list[list[float]] = logits.tolist()
        return found


def prompt_turns(completion: Completion) -> tuple[Turn, ...]:
    """The prompt as people read it, without the feedback sentence: its messages, or `shown` as one user turn.

    Raises:
        InputError: only the exact prompt is known, and it contains a feedback sentence.
    """
    if completion.messages:
        return tuple(Turn(cast(Role, one["role"]), (Part(one["content"]),)) for one in completion.messages)
    if completion.shown is None and holds(completion.prompt, completion.marker):
        raise InputError(
            f"The completion '{completion.id}' has no 'shown', only its prompt with the feedback sentence in it, which "
            "a reward model must not read; add the prompt that people read as 'shown'."
        )
    return (Turn("user", (Part(completion.prompt if completion.shown is None else completion.shown),)),)


def _load(name: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
        raise InputError(
            f"The reward model is {name}, and there is no such folder; give a folder or a name on the hub."
        )
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        reason = f"The reward model '{name}' can't be loaded ({first_line(error)})"
        raise InputError(f"{reason}; give the name or folder of a sequence classification model.") from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"'{name}' is not a reward model: {len(missing)} of its weights are not in its files and would be random "
            f"({', '.join(missing[:3])}); give a model that was trained for sequence classification."
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"The tokenizer of the reward model '{name}' has no fast version (tokenizer.json); convert it."
        )
    return tokenizer, model


def _labels(config: Any, name: str) -> list[str]:
    if config.num_labels == 1:
        return ["reward"]
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    if len(set(labels)) < len(labels):
        given = f"The labels of the reward model '{name}' are {', '.join(labels)}, and two share a name"
        raise InputError(f"{given}; rename them in id2label of its config.json.")
    return labels


def _positions(model: Any) -> int | None:
    """Tokens that the model has positions for; RoBERTa and its relatives start to count after the pad token's id."""
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:  # XLNet has -1: no limit
        return None
    for path, part in model.named_modules():
        if path.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return positions - part.padding_idx - 1
    return positions
