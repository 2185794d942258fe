"""Raters in code: what scores a completion by itself. A function by its import path, the embedded world's rater, or a
reward model of transformers.

    scorer       Completion -> {"polite": 0.8, "polite_words": 3}         `package.module:function`, or `world`
    batched      [Completion, ...] -> [{...}, ...]                         a function with the attribute `batched = True`; `RewardModel`
    critic       Completion -> "it leaves out the reason"                  for rounds of refinement

What people's code gives back is checked here, once, so that everything after it can rely on finite numbers under the
same names for each completion. torch and transformers are imported only for a reward model.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coh_lightning.completions import Completion
from coh_lightning.errors import InputError, did_you_mean, shown, words_of
from coh_lightning.records import Candidate, Feedback, prompt_sha
from coh_lightning.turns import Part, Turn, read_prompt
from coh_lightning.words import holds
from coh_lightning.worlds import import_path

if TYPE_CHECKING:
    import torch


TAKEN = ("tokens", "words", "repetition", "ended", "empty", "rouge1", "rouge2", "rougeL", "rouge", "distinct", "copied")
"""Names that every completion's own numbers have; a score under one of them would hide them."""

Scorer = Callable[[Sequence[Completion]], Sequence[Mapping[str, float]]]
"""Completions -> one mapping each, name -> score."""


def load_scorer(path: str) -> Scorer:
    """A scorer by its import path, `package.module:function` (or with a dot before the function); `world` is the
    embedded world's rater.

    The function takes a Completion and returns a mapping of names to numbers, the same names each time; one with the
    attribute `batched = True` takes a list of completions and returns a list of mappings.

    Raises:
        InputError: no such module or function, something that can't be called; and at each call, what the function
            gives back, by the completion it was given: no mapping, other names than before, what is no finite number.
    """
    path = import_path("scorer", path)
    return _Checked(path, _load(path))


def load_critic(path: str) -> Callable[[Completion], str]:
    """A critic, Completion -> what is to be said of it, by its import path; `world` is the embedded world's. Raises
    InputError as `load_scorer` does.
    """
    function = _load(import_path("critic", path))

    def critic(completion: Completion) -> str:
        remark = _called(function, completion, path, completion.id)
        if not isinstance(remark, str) or not remark.strip():
            raise InputError(
                f"The critic {path} gave {shown(remark)} for the completion '{completion.id}'; it must return text "
                "with words in it."
            )
        return remark.strip()

    return critic


def score(completions: Sequence[Completion], scorer: Scorer) -> list[Completion]:
    """The completions with the scorer's numbers added to their `scores`.

    Raises:
        InputError: another number of results than completions, a name that is taken (by a scorer before, or by a
            completion's own numbers), names that differ from one completion to the next, what is no finite number.
    """
    if not completions:
        return []
    name = getattr(scorer, "name", type(scorer).__name__)
    found = _mappings(scorer(completions), completions, name, None)
    for completion, scores in zip(completions, found, strict=True):
        for key in scores:
            if key in TAKEN or key in completion.scores:
                whose = "every completion's own numbers have" if key in TAKEN else "an earlier scorer gave"
                raise InputError(
                    f"The scorer {name} gives '{key}' for the completion '{completion.id}', a name that {whose}; let "
                    "it use another."
                )
    return [
        replace(completion, scores={**completion.scores, **scores})
        for completion, scores in zip(completions, found, strict=True)
    ]


@dataclass
class _Checked:
    """A function of somebody's, and the names that it gave first."""

    name: str
    function: Callable[..., Any]
    names: frozenset[str] | None = field(default=None, init=False)

    def __call__(self, completions: Sequence[Completion]) -> list[dict[str, float]]:
        if not completions:
            return []
        if getattr(self.function, "batched", False):
            every = f"{completions[0].id}' to '{completions[-1].id}"
            given = _called(self.function, list(completions), self.name, every)
        else:
            given = [_called(self.function, one, self.name, one.id) for one in completions]
        found = _mappings(given, completions, self.name, self.names)
        self.names = frozenset(found[0])
        return found


def _load(path: str) -> Callable[..., Any]:
    """The function of a path. A module that exists and fails to import keeps its own error and traceback: that is its
    author's to see.
    """
    module_name, _, attribute = path.rpartition(":" if ":" in path else ".")
    if not re.fullmatch(r"\w+(\.\w+)*", module_name) or not re.fullmatch(r"\w+(\.\w+)*", attribute):
        raise InputError(
            f"'{path}' is no import path; give package.module:function, such as my_raters:polite for the function "
            "polite in my_raters.py."
        )
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        where = ", ".join(sys.path[:1]) or "the current folder"
        raise InputError(
            f"There is no module '{error.name}' to import '{path}' from; it must be installed, or stand in {where} "
            "or on PYTHONPATH."
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            raise InputError(f"The module '{module_name}' has no '{attribute}'{did_you_mean(part, known)}")
        found = getattr(found, part)
    if not callable(found) or inspect.isclass(found):
        raise InputError(f"'{path}' is {shown(found)}, not a function; name one that takes a Completion.")
    return found


def _called(function: Callable[..., Any], given: Any, name: str, what: str) -> Any:
    try:
        return function(given)
    except InputError as error:
        raise InputError(f"{name}, given the completion '{what}': {error}") from error
    except Exception as error:
        error.add_note(f"{name} raised this, given the completion '{what}'")
        raise


def _mappings(
    given: Any, completions: Sequence[Completion], name: str, names: frozenset[str] | None
) -> list[dict[str, float]]:
    """What a scorer gave, as plain floats. `names`: those it must give, if any are known yet."""
    if not isinstance(given, Sequence) or len(given) != len(completions):
        count = f"{len(given)} results" if isinstance(given, Sequence) else shown(given)
        raise InputError(
            f"The scorer {name} gave {count} for {len(completions)} completions; a batched one returns a list with a "
            "mapping for each."
        )
    found: list[dict[str, float]] = []
    for completion, scores in zip(completions, given, strict=True):
        if not isinstance(scores, Mapping):
            raise InputError(
                f"The scorer {name} gave {shown(scores)} for the completion '{completion.id}'; it must return a "
                "mapping of names to numbers."
            )
        names = frozenset(scores) if names is None else names
        if frozenset(scores) != names:
            listed = [", ".join(sorted(map(str, keys))) or "none" for keys in (scores, names)]
            raise InputError(
                f"The scorer {name} gave the names {listed[0]} for the completion '{completion.id}', but {listed[1]} "
                "before; it must give the same each time."
            )
        found.append(
            {_name(key, name): _finite(value, f"{name} gave", key, completion) for key, value in scores.items()}
        )
    return found


def _name(key: object, scorer: str) -> str:
    if not isinstance(key, str) or not key.strip() or "/" in key:
        raise InputError(
            f"The scorer {scorer} gave a score under the name {shown(key)}; names are text, without '/', which "
            "loggers read as a folder."
        )
    return key


def _finite(value: Any, whose: str, key: object, completion: Completion) -> float:
    # a tensor or an array of one number is a number too; `numbers.Real` holds numpy's own
    number = (
        value.item()
        if not isinstance(value, numbers.Real) and getattr(value, "size", None) is not None and hasattr(value, "item")
        else value
    )
    if not isinstance(number, numbers.Real) or not math.isfinite(number):
        raise InputError(
            f"The scorer {whose} {shown(value)} as '{key}' of the completion '{completion.id}'; a score must be a "
            "finite number."
        )
    return float(number)


# ----------------------------------------------------------------------------------------------------------------
# reward models


class RewardModel:
    """A reward model of transformers (sequence classification) as a scorer: one label gives `reward`, several give one
    score each, by their names.

    A tokenizer with a chat template gets the prompt's turns and the completion as the assistant's; one without gets the
    two as a pair of texts, as the tokenizer joins pairs. The feedback sentence is never part of what is scored: a
    reward is for the prompt that people read (`Completion.shown`).

    Scores are the model's plain outputs, unless its config says what they are (`problem_type`):
    `single_label_classification` gives probabilities that add up to 1, `multi_label_classification` a probability each.

    In a batch each completion gets the score that it gets alone. Rows are padded on the right; whether that is sound
    for an architecture is found out on the first batch of unequal lengths, and where it isn't, only completions of
    equal length share a batch.

    What is longer than the model's positions is cut as training prompts are: old turns first, whole, then the front of
    the last turn; the end of the completion only when nothing else is left. Both are counted (`prompts_cut`,
    `completions_cut`) and warned of once.

    Args:
        name: Name on the hub or folder.
        batch_size: Completions in a forward pass.
        max_tokens: Cut to this many tokens; None: as many as the model has positions for.
        device: None: a GPU where there is one.
        trust_remote_code: Run code that comes with the model. Only for models that you trust.

    Raises:
        InputError: a model that can't be loaded, that has no trained head for classification, whose labels share a
            name, or whose tokenizer is not a fast one.
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
            raise InputError(
                f"A reward model's batch_size is {batch_size} and its max_tokens {max_tokens}; both must be at least 1."
            )
        self.name = str(name)
        self.batch_size = batch_size
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.tokenizer, model = _load_reward_model(self.name, getattr(torch, dtype), trust_remote_code)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.labels = _labels(self.model.config, self.name)
        limits = [
            limit
            for limit in (max_tokens, _positions(self.model), self.tokenizer.model_max_length)
            if limit is not None
        ]
        self.max_tokens = min(limits)
        self.prompts_cut = 0
        self.completions_cut = 0
        self._accepted = set(inspect.signature(self.model.forward).parameters)
        self._pads: bool | None = None
        """Whether a padded row gets the score that it gets alone; None: not known yet."""

    def __call__(self, completions: Sequence[Completion]) -> list[dict[str, float]]:
        """The scores of each completion. Raises InputError for one whose prompt can't be told from its feedback
        sentence, or that the chat template refuses.
        """
        before = self.prompts_cut + self.completions_cut
        rows = [self._fitted(turns(one), one) for one in completions]
        if before == 0 < self.prompts_cut + self.completions_cut:
            warnings.warn(
                f"The reward model '{self.name}' reads at most {self.max_tokens} tokens: {self.prompts_cut} prompts "
                f"and {self.completions_cut} completions of the "
                f"first {len(rows)} were cut for it (later ones are counted in prompts_cut and completions_cut).",
                stacklevel=2,
            )
        outputs: dict[int, list[float]] = {}
        waiting = sorted(range(len(rows)), key=lambda index: -len(rows[index]["input_ids"]))
        while waiting:
            batch = waiting[: self.batch_size]
            if len({len(rows[index]["input_ids"]) for index in batch}) > 1:
                batch = self._checked(batch, rows)
            outputs.update(zip(batch, self._run([rows[index] for index in batch]), strict=True))
            waiting = waiting[len(batch) :]
        return [dict(zip(self.labels, outputs[index], strict=True)) for index in range(len(rows))]

    def _checked(self, batch: list[int], rows: Sequence[Mapping[str, list[int]]]) -> list[int]:
        """The batch itself, where padding changes nothing; else the part of it that needs none. The shortest row, which
        has most padding, is tried once.
        """
        if self._pads is None:
            together, alone = self._run([rows[index] for index in batch])[-1], self._run([rows[batch[-1]]])[0]
            eps = 1e-4 if self.model.dtype.itemsize > 2 else 0.05
            self._pads = all(math.isclose(a, b, rel_tol=eps, abs_tol=eps) for a, b in zip(together, alone, strict=True))
            if not self._pads:
                warnings.warn(
                    f"The reward model '{self.name}' ({self.model.config.model_type}) scores a padded row otherwise "
                    f"than alone ({together[0]:.4g}, alone {alone[0]:.4g}); "
                    "completions share a batch only where they are equally long, which is slower.",
                    stacklevel=3,
                )
        longest = len(rows[batch[0]]["input_ids"])
        return batch if self._pads else [index for index in batch if len(rows[index]["input_ids"]) == longest]

    def _run(self, rows: Sequence[Mapping[str, list[int]]]) -> list[list[float]]:
        import torch

        config = self.model.config.get_text_config()
        pad = config.pad_token_id
        if pad is None or not 0 <= pad < config.vocab_size:
            # Without a pad token the score is read at the last token. It is found by its id: the pad must only be none
            # of the ids that rows end with.
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

    def _fitted(self, prompt: Sequence[Turn], completion: Completion) -> dict[str, list[int]]:
        """The ids of prompt and completion, cut to `max_tokens`."""
        turns, text, cut = list(prompt), completion.text, 0
        first = 1 if turns[0].role == "system" else 0
        row = self._encoded(turns, text, completion)
        while (over := len(row["input_ids"]) - self.max_tokens) > 0:
            next_user = next((index for index in range(first + 1, len(turns)) if turns[index].role == "user"), None)
            if next_user is not None:
                turns = turns[:first] + turns[next_user:]
                cut |= 1
            elif turns[-1].text:
                turns[-1] = Turn(turns[-1].role, (Part(self._shortened(turns[-1].text, over, front=True)),))
                cut |= 1
            elif text:
                text = self._shortened(text, over, front=False)
                cut |= 2
            else:
                raise InputError(
                    f"The reward model '{self.name}' reads {self.max_tokens} tokens, and its chat template alone "
                    f"takes {len(row['input_ids'])}; raise max_tokens."
                )
            row = self._encoded(turns, text, completion)
        self.prompts_cut += cut & 1
        self.completions_cut += cut >> 1
        return row

    def _encoded(self, prompt: Sequence[Turn], text: str, completion: Completion) -> dict[str, list[int]]:
        if self.tokenizer.chat_template is None:
            found = self.tokenizer(read_prompt(prompt), text, verbose=False)
        else:
            from jinja2 import TemplateError

            messages = [
                *({"role": turn.role, "content": turn.text} for turn in prompt),
                {"role": "assistant", "content": text},
            ]
            try:
                rendered = self.tokenizer.apply_chat_template(messages, tokenize=False)
            except TemplateError as error:
                raise InputError(
                    f"The chat template of the reward model '{self.name}' refuses the completion '{completion.id}': "
                    f"{error}."
                ) from error
            found = self.tokenizer(
                rendered, add_special_tokens=False, verbose=False
            )  # the template has written them already
        return {key: list(value) for key, value in found.items()}

    def _shortened(self, text: str, tokens: int, *, front: bool) -> str:
        """The text without its first or last tokens, by at least one character."""
        offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        if tokens >= len(offsets):
            return ""
        return text[max(offsets[tokens][0], 1) :] if front else text[: min(offsets[-tokens][0], len(text) - 1)]


def turns(completion: Completion) -> tuple[Turn, ...]:
    """The prompt's turns without the feedback sentence, from the text that people read (`shown`).

    A conversation stands there with its roles before its turns, and its hash says whether it was taken apart rightly;
    what has another hash is one user turn.

    Raises:
        InputError: only the exact prompt is known, and a feedback sentence stands in it.
    """
    if completion.shown is None:
        if holds(completion.prompt, completion.marker):
            raise InputError(
                f"The completion '{completion.id}' has no 'shown', only its prompt with the feedback sentence in it, "
                "which a reward model must not read; "
                "write it again with this version, or add the prompt that people read as 'shown'."
            )
        return (Turn("user", (Part(completion.prompt),)),)
    pieces = re.split(r"(?:^|\n\n)(System|User|Assistant): ", completion.shown)
    if len(pieces) > 1 and not pieces[0]:
        spoken = tuple(Turn(role.lower(), (Part(text),)) for role, text in zip(pieces[1::2], pieces[2::2], strict=True))  # type: ignore[arg-type]
        if _sha(spoken) == completion.prompt_sha:
            return spoken
    return (Turn("user", (Part(completion.shown),)),)


def _sha(prompt: tuple[Turn, ...]) -> str | None:
    try:
        return prompt_sha(Feedback("-", prompt, (Candidate("-"),)))
    except InputError:  # no prompt that a record could have
        return None


def _load_reward_model(name: str, dtype: torch.dtype, trust_remote_code: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if name.startswith(("/", "./", "../", "~")) and not Path(name).expanduser().is_dir():
        raise InputError(
            f"The reward model is {name}, and there is no such folder; give the name of a model on the hub or the "
            "folder of one."
        )
    name = str(Path(name).expanduser()) if name.startswith("~") else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
        model, told = AutoModelForSequenceClassification.from_pretrained(
            name, dtype=dtype, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"The reward model '{name}' can't be loaded ({words_of(error)}); give the name of a model for sequence "
            "classification, or its folder."
        ) from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise InputError(
            f"'{name}' is no reward model: {len(missing)} of its weights are not in its files and would be random "
            f"({', '.join(missing[:3])}); "
            "give a model that was trained for sequence classification."
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"The tokenizer of the reward model '{name}' has no fast version (tokenizer.json); convert it, or take a "
            "model that has one."
        )
    return tokenizer, model


def _labels(config: Any, name: str) -> list[str]:
    if config.num_labels == 1:
        return ["reward"]
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    if len(set(labels)) < len(labels):
        raise InputError(
            f"The labels of the reward model '{name}' are {', '.join(labels)}, and two share a name; rename them in "
            "id2label of its config.json."
        )
    return labels


def _positions(model: Any) -> int | None:
    """Tokens that the model has positions for. Models of RoBERTa's family count theirs from behind the pad token's
    id.
    """
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:  # XLNet says -1: as many as one likes
        return None
    for path, part in model.named_modules():
        if path.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return positions - part.padding_idx - 1
    return positions
