"""Feedback of the world: the base model writes summaries of posts, and raters judge them.

    post -> 4 summaries by the base model at temperature 1
         -> for each a rank (by a noisy rater), four ratings, a thumb, a critique
         -> one `Feedback`

The thumb is up if the critique finds no fault. Ratings, thumb and critique are exact; only the rank is noisy, like a
person's comparison. With `wrong_words` a share of the critiques, and their thumbs, are wrong too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import read_jsonl, write_jsonl
from coh_lightning.feedback.records import Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.io import atomic_write
from coh_lightning.rng import generator
from coh_lightning.world.faults import FAULTLESS, exchanged
from coh_lightning.world.posts import SUMMARISE, Post, Split, difficulty_of, gold_summary, make_posts
from coh_lightning.world.raters import ATTRIBUTES, RATER_NOISE, Rating, noisy_overall, rate_facts
from coh_lightning.world.writers import WorldKind, writer_shares
from coh_lightning.worlds import WORLD

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

HABITS_BASE, NOISE_BASE = (Path(__file__).parent / "base" / kind for kind in ("habits", "noise"))
"""The base models of the package with their tokenizer, Hugging Face folders."""
BASES: Mapping[WorldKind, Path] = {"habits": HABITS_BASE, "noise": NOISE_BASE}

FEEDBACK_VERSION = 1
"""Part of the cache key: raise it with every change of posts, raters or sampler that changes the feedback."""

TEST_SEED, TUNE_SEED = 2, 3
"""Of the held-out posts to report and to choose settings by; those of seed 0 were looked at while a world was made."""

TASK = "summary"
BATCH_SIZE = 256


def load_base(folder: Path = HABITS_BASE) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """The base model (float32, evaluation mode) and its tokenizer; nothing is downloaded."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    if not (folder / "model.safetensors").is_file():
        raise InputError(f"{folder} has no model.safetensors; make one with `python -m coh_lightning.world.build`.")
    lm = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return lm, PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def world_feedback(
    *,
    posts: int,
    samples: int = 4,
    seed: int = 0,
    difficulty: str = "middle",
    noise: float = RATER_NOISE,
    split: Split = "train",
    kind: WorldKind = "habits",
    cache_dir: Path | None = None,
) -> list[Feedback]:
    """One record per post with `samples` rated summaries by the base model of a kind of world.

    With `cache_dir` the records are cached there as JSON lines, keyed by everything they depend on (of the kind: the
    base model); a truncated or changed file is made again.
    """
    if posts < 1 or samples < 1:
        raise InputError(f"posts is {posts} and samples is {samples}; both must be at least 1.")
    difficulty_of(difficulty)
    writer_shares(kind)
    arguments: dict[str, Any] = {
        "posts": posts, "samples": samples, "seed": seed, "difficulty": difficulty, "noise": noise, "split": split
    }  # fmt: skip
    folder = BASES[kind]
    if cache_dir is None:
        return draw(**arguments, base=folder)
    base, tokenizer = (file_sha256(folder / name) for name in ("model.safetensors", "tokenizer.json"))
    made_from = {"version": FEEDBACK_VERSION, "base": base, "tokenizer": tokenizer, **arguments}
    name = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    file, note = cache_dir / f"world-{name}.jsonl", cache_dir / f"world-{name}.json"
    records = _read_cache(file, note, made_from)
    if records is None:
        records = draw(**arguments, base=folder)
        write_jsonl(file, records)
        # the note comes last: without it, or with another checksum, the file is not trusted
        with atomic_write(note) as aside:
            content = json.dumps({"made_from": made_from, "sha256": file_sha256(file)}, indent=1)
            aside.write_text(content + "\n", encoding="utf-8")
    return records


def habits_feedback(**settings: Any) -> list[Feedback]:
    """`world_feedback` of the `habits` world."""
    return world_feedback(**settings, kind="habits")


def noise_feedback(**settings: Any) -> list[Feedback]:
    """`world_feedback` of the `noise` world."""
    return world_feedback(**settings, kind="noise")


def draw(
    *,
    posts: int,
    samples: int,
    seed: int,
    difficulty: str,
    noise: float,
    split: Split,
    base: Path,
    wrong_words: float = 0.0,
) -> list[Feedback]:
    """The feedback without the cache, on samples of the model in the folder `base`. `wrong_words`: see `rated`."""
    made = make_posts(posts, seed=seed, difficulty=difficulty, split=split)
    ids = [f"world-{difficulty}-{split}-{seed}-{index}" for index in range(posts)]
    lm, tokenizer = load_base(base)
    written = continuations(lm, tokenizer, [post.prompt for post in made], keys=ids, samples=samples, seed=seed)
    # the base model sometimes writes nothing, which is not rated
    rows = zip(made, ([text.strip() for text in texts if text.strip()] for texts in written), ids, strict=True)
    return [
        rated(post, texts, record=record, seed=seed, noise=noise, wrong_words=wrong_words)
        for post, texts, record in rows
        if texts
    ]


def rated(
    post: Post, texts: Sequence[str], *, record: str, seed: int, noise: float = RATER_NOISE, wrong_words: float = 0.0
) -> Feedback:
    """The record of one post with these summaries, rated. Equal texts tie.

    overall scores with noise .91, .40, .91 (same text), .77  ->  ranks 1, 3, 1, 2

    A share `wrong_words` of the critiques name one fault that isn't true, in the place of one that is if there is one;
    the thumb follows the critique. Which ones depends on seed, record and text.
    """
    ratings = [rate_facts(post.facts, text) for text in texts]
    scores = noisy_overall(ratings, texts, seed=seed, record=record, noise=noise)
    places = {score: place for place, score in enumerate(sorted(set(scores), reverse=True), start=1)}

    def critique(text: str, rating: Rating) -> str:
        random = generator(seed, "wrong words", record, text)
        wrong = random.random() < wrong_words
        return exchanged(rating.faults, post.facts, random).critique if wrong else rating.critique

    candidates = [
        _candidate(text, rating, rank=places[score], critique=critique(text, rating))
        for text, rating, score in zip(texts, ratings, scores, strict=True)
    ]
    return _record(post, candidates, record=record)


def world_prompts(
    count: int, *, seed: int = TEST_SEED, difficulty: str = "middle", split: Split = "test"
) -> list[Feedback]:
    """Posts, one record each, with the gold summary as reference and only completion. Those of the split `test` are
    never among the training posts of any seed.
    """
    name = f"world-{difficulty}-gold-{seed}" if split == "test" else f"world-{difficulty}-{split}-{seed}"
    made = []
    for index, post in enumerate(make_posts(count, seed=seed, difficulty=difficulty, split=split)):
        gold = gold_summary(post)
        candidate = _candidate(gold, rate_facts(post.facts, gold), rank=1, critique=FAULTLESS)
        made.append(_record(post, [candidate], record=f"{name}-{index}"))
    return made


def _candidate(text: str, rating: Rating, *, rank: int, critique: str) -> RatedCompletion:
    return RatedCompletion(
        text=text, rank=float(rank), ratings=rating.scores(), thumb=critique == FAULTLESS, critique=critique
    )


def _record(post: Post, candidates: Sequence[RatedCompletion], *, record: str) -> Feedback:
    return Feedback(
        id=record,
        prompt=(Turn("user", (Part(post.text, "front"), Part(SUMMARISE, "never"))),),
        candidates=tuple(candidates),
        scales=dict.fromkeys(ATTRIBUTES, (0.0, 1.0)),
        task=TASK,
        reference=gold_summary(post),
        source=WORLD,
    )


def continuations(
    lm: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    keys: Sequence[str],
    samples: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    max_new_tokens: int = 64,
) -> list[list[str]]:
    """For each prompt `samples` continuations up to the end token (left out) or `max_new_tokens`; temperature 0 is
    greedy. The random draws of a prompt depend only on the seed, its key in `keys` and the number of the sample.
    """
    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.request import Request
    from coh_lightning.generation.sampling import Sampling

    listed = tokenizer(list(prompts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    requests = [Request(key, "", np.array(ids, np.int32)) for key, ids in zip(keys, listed, strict=True)]
    sampling = Sampling(
        max_new_tokens=max_new_tokens, temperature=temperature, samples=samples, batch_size=BATCH_SIZE, seed=seed
    )
    end = tokenizer.eos_token_id
    written = generate(lm, requests, sampling, stop_ids=[end], pad_id=end)
    texts = [str(tokenizer.decode(one.ids.tolist())) for one in written]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def _read_cache(file: Path, note: Path, made_from: Mapping[str, Any]) -> list[Feedback] | None:
    """The cached records, or None if they are missing, truncated, changed, or made from something else."""
    if not file.is_file() or not note.is_file():
        return None
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:  # truncated or not UTF-8
        return None
    if content != {"made_from": dict(made_from), "sha256": file_sha256(file)}:
        return None
    return [dataclasses.replace(record, where="") for record in read_jsonl(file, Feedback)]


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
