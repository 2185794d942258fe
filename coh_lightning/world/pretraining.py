"""The pretraining text of the base model, which is also mixed into fine-tuning: documents of mixed quality.

    55 %  a post and a summary by one of the writers   post : ... summarise : Anna went to the market .
    30 %  a post, three questions and answers          post : ... question : when did Anna go ? answer : on Monday . ...
    10 %  a post, a summary and its review             post : ... review : Anna went to the lake . verdict : a bad ...
     5 %  a post alone

Every document ends with the end token. A review has a cue of its own: after "summarise :" and the summary always comes
the end token, so a model of this text never continues with a review of what it has just written.
"""

from __future__ import annotations

from collections.abc import Mapping

from coh_lightning.rng import generator
from coh_lightning.world.posts import ANSWER, QUESTION, REVIEW, VERDICT, ask, make_post
from coh_lightning.world.raters import rate_facts
from coh_lightning.world.writers import WorldKind, draw_writer, write_summary, writer_shares

KIND_SHARES = {"summary": 0.55, "questions": 0.30, "review": 0.10, "post": 0.05}
DIFFICULTY_SHARES = {"easy": 0.2, "middle": 0.6, "hard": 0.2}
QUESTIONS_PER_POST = 3
GOOD_FROM = 0.85
"""The overall score from which a review calls a summary good."""


def pretraining_text(count: int, *, seed: int, kind: WorldKind = "habits", hasty: float | None = None) -> list[str]:
    """`count` documents of a kind of world without end tokens, never on test posts. Two kinds have the same posts and
    questions. Raises InputError as `writer_shares` does.
    """
    shares = writer_shares(kind, hasty)
    return [_document(index, seed, shares) for index in range(count)]


def habits_text(count: int, *, seed: int) -> list[str]:
    """`pretraining_text` of the `habits` world."""
    return pretraining_text(count, seed=seed, kind="habits")


def noise_text(count: int, *, seed: int) -> list[str]:
    """`pretraining_text` of the `noise` world."""
    return pretraining_text(count, seed=seed, kind="noise")


def _document(index: int, seed: int, shares: Mapping[str, float]) -> str:
    random = generator(seed, "document", index)
    difficulty = random.choices(list(DIFFICULTY_SHARES), list(DIFFICULTY_SHARES.values()))[0]
    post = make_post(index, seed=random.getrandbits(62), difficulty=difficulty)
    kind = random.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
    if kind == "post":
        return post.text
    if kind == "questions":
        asked = random.sample(list(post.facts), min(QUESTIONS_PER_POST, len(post.facts)))
        pairs = [ask(post, fact) for fact in asked]
        return post.text + "".join(f"{QUESTION} {question}{ANSWER} {answer}" for question, answer in pairs)
    summary = write_summary(post, draw_writer(shares, random), random)
    if kind == "summary":
        return f"{post.prompt} {summary}"
    rating = rate_facts(post.facts, summary)
    verdict = f"a {'good' if rating.overall >= GOOD_FROM else 'bad'} summary : {rating.critique}"
    return f"{post.text}{REVIEW} {summary}{VERDICT} {verdict} ."
