"""Scores of summaries by the world's raters, tables of them, and general ability (questions answered correctly).

The raters are exact. Intervals are 95 % bootstrap intervals over prompts: how much other prompts would move a figure,
not how much another training run would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coh_lightning.feedback.completions import Completion
from coh_lightning.intervals import Interval, mean_interval
from coh_lightning.world import posts, raters
from coh_lightning.world.feedback import TEST_SEED, continuations
from coh_lightning.world.posts import Post

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MEASURES = (*raters.ATTRIBUTES, "faultless")


@dataclass(frozen=True)
class ScoreRow:
    """Measure -> interval, and that of the difference from the baseline over the same prompts (None: no baseline)."""

    name: str
    measures: Mapping[str, Interval]
    difference: Mapping[str, Interval] | None


def rate(post: Post | str, completion: str) -> dict[str, float]:
    """accuracy, coverage, coherence, overall and faultless (1 or 0) of a summary of the post, or a prompt's post."""
    rating = raters.rate_facts(post.facts, completion) if isinstance(post, Post) else raters.rate(post, completion)
    return {**rating.scores(), "faultless": float(rating.faultless)}


def score(completion: Completion) -> dict[str, float]:
    """accuracy, coverage, coherence and overall, as a scorer (`scorers=["world"]`). Raises InputError if the prompt is
    not a post of the world.
    """
    return _rating(completion).scores()


def critique(completion: Completion) -> str:
    """The rater's critique, as a critic (`critic="world"`). Raises InputError as `score` does."""
    return _rating(completion).critique


def _rating(completion: Completion) -> raters.Rating:
    return raters.rate(completion.prompt if completion.shown is None else completion.shown, completion.text)


def table(
    rows: Mapping[str, Sequence[Mapping[str, float]]], *, baseline: str | None = None, seed: int = 0
) -> list[ScoreRow]:
    """Rows of scores, one `rate` result per prompt in the same order of prompts, -> rows of intervals.

    base       .6 .8         ->  base       .70 [...]
    SFT        .7 .8             SFT        .75 [...]   difference +.05 [...]
    """
    sizes = {name: len(scores) for name, scores in rows.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the rows are scored on different numbers of prompts: {sizes}")
    if baseline is not None and baseline not in rows:
        raise ValueError(f"the baseline {baseline!r} is not one of the rows {', '.join(rows)}")
    columns = {
        name: {measure: np.array([score[measure] for score in scores]) for measure in MEASURES}
        for name, scores in rows.items()
    }
    made = []
    for name, column in columns.items():
        intervals = {measure: mean_interval(values, seed=seed) for measure, values in column.items()}
        difference = None
        if baseline is not None and name != baseline:
            gaps = {measure: values - columns[baseline][measure] for measure, values in column.items()}
            difference = {measure: mean_interval(gap, seed=seed) for measure, gap in gaps.items()}
        made.append(ScoreRow(name, intervals, difference))
    return made


def general_ability(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[tuple[str, str]],
    *,
    max_new_tokens: int = 12,
) -> float:
    """The share of questions (prompt, answer) that the model answers correctly with greedy decoding: its text up to the
    first period must equal the answer word for word.
    """
    prompts = [prompt for prompt, _ in questions]
    written = continuations(lm, tokenizer, prompts, keys=prompts, temperature=0.0, max_new_tokens=max_new_tokens)
    pairs = zip(written, questions, strict=True)
    return sum(_first_sentence(text) == _first_sentence(answer) for (text,), (_, answer) in pairs) / len(questions)


def ability(lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, count: int = 300) -> float:
    """`general_ability` on the questions that `make demo` asks."""
    return general_ability(lm, tokenizer, posts.questions(count, seed=TEST_SEED))


def _first_sentence(text: str) -> list[str]:
    words = text.split()
    return words[: words.index(".")] if "." in words else words
