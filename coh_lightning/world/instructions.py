"""Instructions of `world:constraints`, and feedback on a model's own answers to them.

    python -m coh_lightning.world.instructions MODEL --output DIR

    instructions     Describe the sea. Use at most 40 words. Use the words 'salt' and 'boat'.
    MODEL            4 answers to each, through our own generation
    rules            for each answer: a rank, a rating per constraint, a thumb, a critique  ->  DIR/train.jsonl
    DIR/test.jsonl   instructions about other subjects, each with an answer that was made by rule

MODEL is a Hugging Face folder, a name on the hub, or a checkpoint of ours, with a chat template. The rule-made answers
only fill the place of one: they meet every constraint and say nothing.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.feedback.records import OVERALL, Feedback, RatedCompletion
from coh_lightning.feedback.turns import Part, Turn
from coh_lightning.rng import generator
from coh_lightning.words import words
from coh_lightning.world.constraints import RULES, Constraint, Rating, quoted, rate

if TYPE_CHECKING:
    from coh_lightning.generation.sampling import Sampling

NAME = "world:constraints"

SUBJECTS: dict[str, str] = {
    "the sea": "salt boat waves fish",
    "a rainy day": "umbrella clouds puddle street",
    "baking bread": "flour oven yeast dough",
    "a train journey": "window station ticket seat",
    "the moon": "night light sky rock",
    "growing tomatoes": "soil water sun leaf",
    "a good night's sleep": "bed dark quiet pillow",
    "riding a bicycle": "wheel road brake balance",
    "a library": "books shelf quiet card",
    "the winter": "snow cold coat ice",
    "making tea": "water cup leaves milk",
    "a market": "fruit stall price crowd",
    "learning to swim": "pool breath arms water",
    "a volcano": "lava ash rock heat",
    "keeping a dog": "walk food leash friend",
    "the heart": "blood pump beat body",
    "a football match": "ball goal team fans",
    "writing a letter": "paper pen stamp address",
    "a forest": "trees birds moss path",
    "saving money": "bank spend plan month",
    "bees": "honey flower hive wings",
    "a birthday party": "cake candles gift music",
    "climbing a mountain": "rope peak boots weather",
    "the desert": "sand heat camel dry",
    "cleaning a kitchen": "soap sink floor cloth",
    "a piano": "keys music hands sound",
    "rainbows": "color light rain sun",
    "a bridge": "river steel cross stone",
    "going to the dentist": "teeth chair clean pain",
    "the stars": "night far bright sky",
    "a farm": "cow barn field tractor",
    "planting a tree": "hole roots water shade",
}
"""What an instruction is about -> words that may be asked for. Every fourth subject is for test instructions alone."""
REQUESTS = ("Describe {}.", "Tell me about {}.", "Explain {} to a child.", "Write a short text about {}.")
COMMON_WORDS = ("very", "also", "can", "many", "of", "with", "but", "their")
"""Words of which one may be forbidden; no ending has them."""
ENDINGS = ("that is all for now", "now you know", "what do you think", "and so it goes")
KEYS = ("name", "summary", "topic", "reason", "example", "place")
LANGUAGES = ("Spanish", "French", "German", "Italian")

APART = (
    {"at_most", "at_least"}, {"bullets", "json"}, {"json", "ending"}, {"json", "language"}, {"json", "keywords"},
    {"language", "keywords"}, {"language", "without"}, {"language", "ending"},
)  # fmt: skip
"""Kinds that are not asked for together: they contradict each other, or hardly go together."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Instruction:
    """A request and its constraints."""

    request: str
    constraints: tuple[Constraint, ...]

    @property
    def text(self) -> str:
        return " ".join([self.request, *(one.sentence for one in self.constraints)])


def make_instructions(count: int, *, seed: int, split: Split = "train") -> list[Instruction]:
    """Different instructions of two or three constraints. They depend only on the seed and the split, and those of the
    two splits are about different subjects, whatever the seeds.
    """
    draws = generator(seed, "instructions", split)
    subjects = [subject for place, subject in enumerate(SUBJECTS) if (place % 4 == 3) == (split == "test")]
    made: dict[str, Instruction] = {}
    while len(made) < count:
        one = _draw(draws, draws.choice(subjects))
        made.setdefault(one.text, one)
    return list(made.values())


def _draw(draws: random.Random, subject: str) -> Instruction:
    request = draws.choice(REQUESTS).format(subject)
    number = draws.choice((2, 3))
    while True:
        kinds = draws.sample(list(RULES), number)
        if not any(pair <= set(kinds) for pair in APART):
            return Instruction(request, tuple(_constraint(kind, subject, draws) for kind in kinds))


def _constraint(kind: str, subject: str, draws: random.Random) -> Constraint:
    values = {
        "at_most": lambda: str(draws.choice((20, 30, 40, 50, 60))),
        "at_least": lambda: str(draws.choice((30, 40, 50, 60))),
        "keywords": lambda: quoted(draws.sample(SUBJECTS[subject].split(), 2)),
        "without": lambda: draws.choice(COMMON_WORDS),
        "bullets": lambda: str(draws.choice((2, 3, 4, 5))),
        "json": lambda: quoted(draws.sample(KEYS, 2)),
        "language": lambda: draws.choice(LANGUAGES),
        "ending": lambda: draws.choice(ENDINGS),
        "lower_case": lambda: "everything",
    }
    return Constraint(kind, values[kind]())


_FILLING = {
    "English": "here are the plain words that fill this answer up to a length and say nothing at all",
    "Spanish": "la vida de los niños en el campo es una cosa que se dice con el tiempo",
    "French": "la vie des enfants dans le jardin est une chose qui se dit avec le temps",
    "German": "das leben der kinder auf dem land ist nicht eine sache die sich mit der zeit sagt",
    "Italian": "la vita dei bambini è una cosa che si dice con il tempo nel giardino",
}


def answer_by_rule(instruction: Instruction) -> str:
    """An answer that meets every constraint and says nothing."""
    asked = {one.kind: one.value for one in instruction.constraints}
    length = int(asked.get("at_least", 12))
    filling = cycle(_FILLING[asked.get("language", "English")].split())
    text = " ".join(next(filling) for _ in range(length))
    if "json" in asked:
        names = asked["json"].replace("'", "").split(" and ")
        return json.dumps(dict(zip(names, (text, "plain"), strict=True)), ensure_ascii=False)
    tail = [asked["keywords"].replace("'", "").replace(" and ", " ")] if "keywords" in asked else []
    if "bullets" in asked:
        number = int(asked["bullets"])
        parts = text.split()
        text = "\n".join(f"- {' '.join(parts[place::number])}" for place in range(number))
    return "\n".join([text, *tail, *([asked["ending"]] if "ending" in asked else [])])


def rated(instruction: Instruction, texts: Sequence[str], *, record: str) -> Feedback:
    """The record of one instruction with these answers. Answers that meet as many constraints tie in rank.

    overall 1, .5, 1, 0    ->  ranks 1, 2, 1, 3
    """
    ratings = [rate(instruction.text, text) for text in texts]
    places = {score: place for place, score in enumerate(sorted({one.overall for one in ratings}, reverse=True), 1)}
    kinds = [one.kind for one in instruction.constraints]
    return Feedback(
        id=record,
        prompt=(Turn("user", (Part(instruction.text, "never"),)),),
        candidates=tuple(_candidate(text, one, places[one.overall]) for text, one in zip(texts, ratings, strict=True)),
        scales=dict.fromkeys([*kinds, OVERALL], (0.0, 1.0)),
        source=NAME,
    )


def _candidate(text: str, rating: Rating, rank: int) -> RatedCompletion:
    ratings = {**rating.met, OVERALL: rating.overall}
    return RatedCompletion(text, float(rank), ratings, rating.faultless, rating.critique)


def held_out_records(count: int, *, seed: int) -> list[Feedback]:
    """Test instructions, each with its rule-made answer, which every method can use."""
    made = make_instructions(count, seed=seed, split="test")
    return [
        rated(one, [answer_by_rule(one)], record=f"constraints-test-{seed}-{place}") for place, one in enumerate(made)
    ]


def answered(model: str, instructions: Sequence[Instruction], sampling: Sampling, *, record: str) -> Iterator[Feedback]:
    """The records of the model's own answers, without those that have no words, in the order of the instructions.

    Raises:
        InputError: the model can't be loaded, or its tokenizer has no chat template.
    """
    from coh_lightning.generation.decoding import generate
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.model.tokenizer import choose_tokenizer
    from coh_lightning.sequences.method import Method
    from coh_lightning.sequences.prompt_format import PromptFormat
    from coh_lightning.sequences.wording import Wording

    spec = ModelSpec(model)
    tokenizer = choose_tokenizer(None, spec, NAME).tokenizer
    method = Method(orders=("p",), sentences="none")
    prompter = Prompter.make(tokenizer, method, Wording(), PromptFormat("chat"), max_prompt_tokens=512)
    blanks = [rated(one, [answer_by_rule(one)], record=f"{record}-{place}") for place, one in enumerate(instructions)]
    requests = [prompter.request(blank, "good", "") for blank in blanks]
    written = generate(spec.build(), requests, sampling, stop_ids=prompter.stop_ids, pad_id=prompter.pad_id)
    texts = [prompter.text(one.request, one.ids).strip() for one in written]
    for place, (blank, one) in enumerate(zip(blanks, instructions, strict=True)):
        own = [text for text in texts[place * sampling.samples :][: sampling.samples] if words(text)]
        if own:
            yield rated(one, own, record=blank.id)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; gives its exit status."""
    parser = CommandParser(
        prog="python -m coh_lightning.world.instructions", description=(__doc__ or "").split("\n\n")[0]
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="who answers: a Hugging Face folder, a name on the hub, or a checkpoint of ours")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for train.jsonl and test.jsonl")
    add("--prompts", type=int, default=100, help="training instructions (default %(default)s)")
    add("--samples", type=int, default=4, help="answers to each (default %(default)s)")
    add("--test-prompts", type=int, default=60, help="test instructions (default %(default)s)")
    add("--temperature", type=float, default=1.0, help="of the answers (default %(default)s)")
    add("--max-new-tokens", type=int, default=128, help="of an answer (default %(default)s)")
    add("--batch-size", type=int, default=32, help="answers written at a time (default %(default)s)")
    add("--seed", type=int, default=0, help="of instructions and answers (default %(default)s)")
    try:
        args = parser.parse_args(argv)
        for name in ("prompts", "test_prompts"):
            if getattr(args, name) < 1:
                parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}; it must be at least 1")
        from coh_lightning.generation.sampling import Sampling

        names = ("samples", "temperature", "max_new_tokens", "batch_size", "seed")
        sampling = Sampling(**{name: getattr(args, name) for name in names})
        made = make_instructions(args.prompts, seed=args.seed)
        records = list(answered(args.model, made, sampling, record=f"constraints-{args.seed}"))
        write_jsonl(args.output / "train.jsonl", records)
        write_jsonl(args.output / "test.jsonl", held_out_records(args.test_prompts, seed=args.seed))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    every = [one for record in records for one in record.candidates]
    met = sum(one.ratings[OVERALL] for one in every) / max(len(every), 1)
    faultless = sum(bool(one.thumb) for one in every)
    print(
        f"{len(every)} answers to {len(records)} instructions; {met:.1%} of the constraints met; {faultless} faultless"
    )
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
