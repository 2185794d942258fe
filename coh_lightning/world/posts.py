"""Posts of the world: seeded short posts, the facts in them, summaries of mixed quality, and questions.

A post is about one person's day out. It has a person and a place; the other kinds of fact (details) may be missing.
Sentences about somebody else or the scenery distract. Each word with the space before it is one token.

    facts    person Anna, place market, day Monday, reason bread
    post     post : Anna went to the market . it was Monday . Tom took the tram . Anna wanted bread .
    gold     Anna went to the market on Monday for bread .
    poor     Anna went to the market on Friday .
    question when did Anna go ?     answer on Monday .

The same seed gives the same texts in every process. Train and test posts are disjoint for all seeds, because a hash of
the text decides the split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from coh_lightning.errors import InputError
from coh_lightning.rng import generator, key64

Split = Literal["train", "test"]

# These words are data: the base model was trained on them and each is one token, so their British spelling stays.
WOMEN = tuple("Anna Clara Eva Grace Ida Julia Lena Maria Nina Olga Rosa Vera".split())
MEN = tuple("Adam Ben Carl David Emil Felix Hugo Jonas Leo Max Paul Tom".split())
PLACES = tuple(
    "market lake museum park station library harbour castle theatre zoo beach garden church school forest river".split()
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COMPANIONS = tuple("friends neighbours cousins colleagues teachers nurses painters dogs singers soldiers".split())
VEHICLES = ("bus", "train", "tram", "bike", "car", "boat", "taxi", "ferry")
COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink")
WISHES = ("bread", "flowers", "books", "stones", "maps", "shoes", "paper", "wood", "honey", "work")
MEALS = ("soup", "cake", "fish", "rice", "cheese", "apples", "eggs", "salad")
RESULTS = (
    "got lost", "got wet", "got tired", "lost a key", "lost a shoe", "lost a ring", "found a coin", "found a key",
    "found a cat", "met a poet", "met a king", "met a doctor", "fell asleep", "fell ill", "came home late",
    "came home happy",
)  # fmt: skip
SCENERY = (
    "the weather was cold", "the weather was warm", "the sky was grey", "the streets were empty",
    "the streets were full",
)  # fmt: skip

PRONOUNS: Mapping[str, str] = {**dict.fromkeys(WOMEN, "she"), **dict.fromkeys(MEN, "he")}
DETAILS = ("company", "clothes", "transport", "day", "reason", "meal", "result")
"""The kinds of fact that may be missing, in the order in which summaries state them."""
KINDS = ("person", "place", *DETAILS)

VALUES: Mapping[str, tuple[str, ...]] = {
    "person": WOMEN + MEN,
    "place": PLACES,
    "company": COMPANIONS,
    "clothes": COLOURS,
    "transport": VEHICLES,
    "day": DAYS,
    "reason": WISHES,
    "meal": MEALS,
    "result": RESULTS,
}
"""Kind of fact -> its possible values."""

# How a post states a fact: {s} is the subject (name or pronoun), {v} the value. A form without {s} is always about the
# post's person.
FORMS: Mapping[str, tuple[str, ...]] = {
    "place": ("{s} went to the {v}", "{s} visited the {v}"),
    "company": ("{s} was with {v}", "{v} came along"),
    "clothes": ("{s} wore {v}", "{s} was dressed in {v}"),
    "transport": ("{s} took the {v}", "{s} travelled by {v}"),
    "day": ("{s} went on {v}", "it was {v}"),
    "reason": ("{s} wanted {v}", "{s} was looking for {v}"),
    "meal": ("{s} ate {v}", "{s} had {v} for lunch"),
    "result": ("in the end {s} {v}", "at last {s} {v}"),
}
QUESTIONS: Mapping[str, tuple[str, str]] = {
    "person": ("who is it about ?", "{v} ."),
    "place": ("where did {p} go ?", "to the {v} ."),
    "company": ("who was with {p} ?", "with {v} ."),
    "clothes": ("how was {p} dressed ?", "in {v} ."),
    "transport": ("how did {p} travel ?", "by {v} ."),
    "day": ("when did {p} go ?", "on {v} ."),
    "reason": ("why did {p} go ?", "for {v} ."),
    "meal": ("what did {p} eat ?", "some {v} ."),
    "result": ("what happened to {p} ?", "{p} {v} ."),
}
# How a summary states a fact after "went". Each kind has its own preposition, so that a small model learns them fast.
PHRASES: Mapping[str, str] = {
    "place": "to the {v}",
    "company": "with {v}",
    "clothes": "in {v}",
    "transport": "by {v}",
    "day": "on {v}",
    "reason": "for {v}",
}
PHRASES_PER_SENTENCE = 4

HEADER = "post :"
SUMMARISE = " summarise :"
REVIEW = " review :"
VERDICT = " verdict :"
QUESTION = " question :"
ANSWER = " answer :"

WORDING_WORDS = (
    "a an A An the The good bad best worst better worse helpful unhelpful perfect poor fair summary answer response "
    "text of which people say says said that it is was right wrong and complete gets leaves out makes up things thing "
    "twice mixes he she breaks off has broken sentence nothing about , . : ; ? ! not very here following person place "
    "day company clothes transport reason meal result rated rating low high middle accuracy coverage coherence overall "
    "accurate inaccurate incomplete coherent incoherent partly mostly one two three four five tie equally review "
    "verdict summarise question post as"
).split()
"""Words for feedback sentences and critiques; those not in the pretraining text are untrained, but one token each."""


@dataclass(frozen=True)
class Difficulty:
    """How hard a post is: the range of its details and of its distracting sentences, both ends included."""

    details: tuple[int, int]
    distractors: tuple[int, int]


DIFFICULTIES: Mapping[str, Difficulty] = {
    "easy": Difficulty(details=(1, 2), distractors=(0, 1)),
    "middle": Difficulty(details=(3, 5), distractors=(0, 2)),
    "hard": Difficulty(details=(5, 7), distractors=(1, 3)),
}


@dataclass(frozen=True)
class Post:
    """A post and its facts, which a summary should state: kind -> value, in the order of KINDS."""

    text: str
    facts: Mapping[str, str]
    others: Mapping[str, str]
    """Facts about somebody else (kind -> value), which careless writers mix up with the others."""

    @property
    def prompt(self) -> str:
        """The post with the request to summarize it."""
        return self.text + SUMMARISE


def difficulty_of(name: str) -> Difficulty:
    """The difficulty of this name. Raises InputError with the known names."""
    if name not in DIFFICULTIES:
        raise InputError(f"difficulty is {name!r}; it must be one of {', '.join(DIFFICULTIES)}.")
    return DIFFICULTIES[name]


def make_posts(count: int, *, seed: int, difficulty: str = "middle", split: Split = "train") -> list[Post]:
    """`count` posts of one difficulty. Posts of the two splits never share a text, whatever the seeds."""
    return [make_post(index, seed=seed, difficulty=difficulty, split=split) for index in range(count)]


def make_post(index: int, *, seed: int, difficulty: str = "middle", split: Split = "train") -> Post:
    """The post with this number; it depends only on the arguments."""
    level = difficulty_of(difficulty)
    random = generator(seed, "post", difficulty, split, index)
    while True:
        post = _draw_post(level, random)
        if ("test" if key64(0, "split", post.text) % 8 == 0 else "train") == split:
            return post


def _draw_post(level: Difficulty, random: random.Random) -> Post:
    person = random.choice(VALUES["person"])
    chosen = set(random.sample(DETAILS, random.randint(*level.details)))
    facts = {"person": person} | {
        kind: random.choice(VALUES[kind]) for kind in KINDS[1:] if kind in chosen or kind == "place"
    }
    # the kinds of fact, one per sentence; None is a distracting sentence
    body = [kind for kind in DETAILS if kind in chosen and kind != "result"]
    random.shuffle(body)
    plan: list[str | None] = [*body, *(["result"] if "result" in chosen else [])]
    for _ in range(random.randint(*level.distractors)):
        plan.insert(random.randint(0, len(plan)), None)

    other = random.choice([name for name in VALUES["person"] if name != person])
    others: dict[str, str] = {}
    sentences = [random.choice(FORMS["place"]).format(s=person, v=facts["place"])]
    after_distraction = False
    for kind in plan:
        if kind is None:
            sentences.append(_distraction(other, facts, others, random))
            after_distraction = True
            continue
        # right after somebody else a pronoun would be ambiguous
        subject = person if after_distraction or random.random() < 0.3 else PRONOUNS[person]
        sentences.append(random.choice(FORMS[kind]).format(s=subject, v=facts[kind]))
        after_distraction = False
    return Post(text=" ".join([HEADER, *(f"{sentence} ." for sentence in sentences)]), facts=facts, others=others)


def _distraction(other: str, facts: Mapping[str, str], others: dict[str, str], random: random.Random) -> str:
    """A sentence about somebody else (added to `others`) or about the scenery."""
    kinds = [kind for kind in ("place", *DETAILS) if kind not in others]
    if random.random() < 0.25:
        return random.choice(SCENERY)
    kind = random.choice(kinds)
    others["person"] = other
    others[kind] = random.choice([value for value in VALUES[kind] if value != facts.get(kind)])
    return next(form for form in FORMS[kind] if "{s}" in form).format(s=other, v=others[kind])


def state(facts: Mapping[str, str], *, pronoun: str) -> list[str]:
    """The sentences (without period) that state these facts in the usual order; the later ones begin with the pronoun.

    person Anna, place lake, day Monday, meal soup, result got wet
    -> "Anna went to the lake on Monday", "she had soup and got wet"
    """
    phrases = [PHRASES[kind].format(v=facts[kind]) for kind in PHRASES if kind in facts]
    starts = range(0, len(phrases), PHRASES_PER_SENTENCE)
    sentences = ["went " + " ".join(phrases[start : start + PHRASES_PER_SENTENCE]) for start in starts]
    verbs = [f"had {facts['meal']}"] if "meal" in facts else []
    verbs += [facts["result"]] if "result" in facts else []
    if verbs:
        sentences.append(" and ".join(verbs))
    subjects = [facts.get("person", pronoun)] + [pronoun] * len(sentences)
    return [f"{subject} {sentence}" for subject, sentence in zip(subjects, sentences, strict=False)]


def gold_summary(post: Post) -> str:
    """The summary that states every fact of the post correctly."""
    return " ".join(f"{sentence} ." for sentence in state(post.facts, pronoun=PRONOUNS[post.facts["person"]]))


def ask(post: Post, kind: str) -> tuple[str, str]:
    """The question about this kind of fact and its answer, as words: ("when did Anna go ?", "on Monday .")."""
    question, answer = QUESTIONS[kind]
    names = {"p": post.facts["person"], "v": post.facts[kind]}
    return question.format(**names), answer.format(**names)


def questions(count: int, *, seed: int, difficulty: str = "middle", split: Split = "test") -> list[tuple[str, str]]:
    """(prompt, answer) on `count` posts, one question each. The answer begins with a space and ends with a period."""
    pairs = []
    for index, post in enumerate(make_posts(count, seed=seed, difficulty=difficulty, split=split)):
        question, answer = ask(post, generator(seed, "question", index).choice(list(post.facts)))
        pairs.append((f"{post.text}{QUESTION} {question}{ANSWER}", f" {answer}"))
    return pairs


def vocabulary() -> list[str]:
    """Every word of the world, sorted; with the space before it, each is one token."""
    cues = (HEADER, SUMMARISE, REVIEW, VERDICT, QUESTION, ANSWER)
    texts: list[str] = [*WORDING_WORDS, *SCENERY, *PRONOUNS.values(), "went had and", *cues]
    for values in VALUES.values():
        texts.extend(values)
    for forms in (*FORMS.values(), *QUESTIONS.values(), tuple(PHRASES.values())):
        texts.extend(form.replace("{s}", " ").replace("{v}", " ").replace("{p}", " ") for form in forms)
    return sorted({word for text in texts for word in text.split()})
