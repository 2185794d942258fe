"""The embedded world: posts, raters, tokenizer, base model, feedback, evaluation."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coh_lightning.errors import InputError
from coh_lightning.feedback.jsonl import write_jsonl
from coh_lightning.world import evaluate, feedback, posts, raters
from coh_lightning.world.base_model import CHECKSUMS, checksums, make_base
from coh_lightning.world.pretraining import pretraining_text
from coh_lightning.world.tokenizer import END, PAD, make_tokenizer, words_as_tokens
from coh_lightning.world.writers import WORLD_KINDS, WRITERS, WorldKind, Writer, write_summary

FACTS = {
    "person": "Anna",
    "place": "market",
    "company": "friends",
    "day": "Monday",
    "reason": "bread",
    "result": "got lost",
}
GOLD = "Anna went to the market with friends on Monday for bread . she got lost ."
DIFFICULTIES = list(posts.DIFFICULTIES)


# --- posts


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_gold_summary_is_faultless_and_the_facts_are_read_from_the_post(difficulty: str) -> None:
    for post in posts.make_posts(300, seed=11, difficulty=difficulty):
        rating = raters.rate(post.prompt, posts.gold_summary(post))
        assert rating.scores() == {"accuracy": 1.0, "coverage": 1.0, "coherence": 1.0, "overall": 1.0}, post
        assert rating.faultless
        assert raters.read_post(post.prompt) == dict(post.facts)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_posts_difficulty_sets_the_number_of_facts_and_distractors(difficulty: str) -> None:
    level = posts.DIFFICULTIES[difficulty]
    made = posts.make_posts(300, seed=5, difficulty=difficulty)
    details = [len(post.facts) - 2 for post in made]
    distractors = [post.text.count(" .") - 1 - (len(post.facts) - 2) for post in made]
    assert (min(details), max(details)) == level.details
    assert (min(distractors), max(distractors)) == level.distractors


def test_a_harder_post_has_more_to_get_wrong() -> None:
    def faultless(difficulty: str) -> float:
        made = posts.make_posts(300, seed=2, difficulty=difficulty)
        return float(
            np.mean(
                [
                    raters.rate_facts(p.facts, write_summary(p, WRITERS["fair"], random.Random(i))).faultless
                    for i, p in enumerate(made)
                ]
            )
        )

    assert faultless("easy") > faultless("middle") > faultless("hard")


def test_better_writers_get_better_ratings() -> None:
    made = posts.make_posts(200, seed=3)
    means = [
        np.mean(
            [
                raters.rate_facts(post.facts, write_summary(post, writer, random.Random(i))).overall
                for i, post in enumerate(made)
            ]
        )
        for writer in (WRITERS["good"], WRITERS["fair"], WRITERS["poor"])
    ]
    assert means[0] > 0.95 and means[0] > means[1] > means[2] > 0.5


def test_train_and_test_posts_are_disjoint_whatever_the_seed() -> None:
    train = {post.text for seed in (0, 1) for post in posts.make_posts(2000, seed=seed, difficulty="easy")}
    test = {post.text for seed in (0, 1) for post in posts.make_posts(2000, seed=seed, difficulty="easy", split="test")}
    assert not train & test
    assert not test & {
        text.split(posts.SUMMARISE)[0].split(posts.QUESTION)[0].split(posts.REVIEW)[0]
        for text in pretraining_text(2000, seed=0)
    }


def test_a_post_depends_on_its_number_not_on_how_many_are_made() -> None:
    assert posts.make_posts(3, seed=4) == posts.make_posts(20, seed=4)[:3]
    assert posts.make_posts(3, seed=4) != posts.make_posts(3, seed=5)


def test_another_process_with_another_hash_seed_makes_the_same_texts() -> None:
    code = (
        "from coh_lightning.world import posts; from coh_lightning.world.pretraining import pretraining_text as t; "
        "print(posts.make_posts(20, seed=1)); print(t(40, seed=1)); print(posts.questions(20, seed=1)); "
        "print(posts.vocabulary())"
    )
    root = Path(__file__).parents[2]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_posts_and_raters_import_no_torch() -> None:
    code = (
        "import sys; import coh_lightning.world.feedback, coh_lightning.world.evaluate, "
        "coh_lightning.world.pretraining; sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(Path(__file__).parents[2])}, check=False
        ).returncode
        == 0
    )


def test_questions_are_about_facts_of_the_post() -> None:
    for prompt, answer in posts.questions(100, seed=0):
        facts = raters.read_post(prompt)
        assert answer.startswith(" ") and answer.endswith(" .")
        assert any(value in answer for value in facts.values())


def test_an_unknown_difficulty_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'hrad'.*easy, middle, hard"):
        posts.make_posts(1, seed=0, difficulty="hrad")


# --- raters


@pytest.mark.parametrize(
    ("text", "critique", "accuracy", "coverage", "coherence"),
    [
        (GOLD, "it is right and complete", 1, 1, 1),
        (GOLD.replace("Monday", "Friday"), "it gets the day wrong", 5 / 6, 5 / 6, 1),
        (GOLD.replace("Anna", "Clara"), "it gets the person wrong", 5 / 6, 5 / 6, 1),
        (
            GOLD.replace("Monday", "Friday").replace(" for bread", ""),
            "it gets the day wrong and leaves out the reason",
            4 / 5,
            4 / 6,
            1,
        ),
        ("Anna went to the market .", "it leaves out the company , the day , the reason and the result", 1, 2 / 6, 1),
        (GOLD.replace(" on Monday", " by bus on Monday"), "it makes up the transport", 6 / 7, 1, 1),
        (GOLD + " she went on Monday .", "it says a thing twice", 1, 1, 2 / 3),
        (GOLD.replace("she", "he"), "it mixes up he and she", 1, 1, 1 / 2),
        (
            GOLD.replace("she got", "she cheese got"),
            "it leaves out the result and has a broken sentence",
            1,
            5 / 6,
            1 / 2,
        ),
        (GOLD[:-2], "it breaks off", 1, 1, 1 / 2),
        (GOLD.removesuffix(" got lost ."), "it leaves out the result and breaks off", 1, 5 / 6, 1 / 2),
        (
            GOLD.replace("got lost", "got lost and went by bus and had soup"),
            "it makes up the transport and the meal",
            6 / 8,
            1,
            1,
        ),
        ("", "it says nothing", 0, 0, 0),
        (" \n ", "it says nothing", 0, 0, 0),
        (
            ". . .",
            "it leaves out the person , the place , the company , the day , the reason and the result and has a "
            "broken sentence",
            0,
            0,
            0,
        ),
    ],
)
def test_each_fault_is_found_and_named(
    text: str, critique: str, accuracy: float, coverage: float, coherence: float
) -> None:
    rating = raters.rate_facts(FACTS, text)
    assert rating.critique == critique
    assert (rating.accuracy, rating.coverage, rating.coherence) == pytest.approx((accuracy, coverage, coherence))
    assert rating.overall == pytest.approx((accuracy + coverage + coherence) / 3)
    assert rating.faultless == (critique == "it is right and complete")


_FAULTS = ("wrong", "gap", "invention", "repeat", "break_off", "slip")


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_writers_only_fault_is_always_found(fault: str) -> None:
    writer = Writer(**{name: float(name == fault) for name in _FAULTS})
    words = {
        "wrong": "wrong",
        "gap": "leaves out",
        "invention": "makes up",
        "repeat": "says a thing twice",
        "break_off": "breaks off",
        "slip": "mixes up he and she",
    }
    for index, post in enumerate(posts.make_posts(60, seed=8)):
        summary = write_summary(post, writer, random.Random(index))
        if fault == "slip" and " she " not in summary and " he " not in summary:
            continue
        assert words[fault] in raters.rate_facts(post.facts, summary).critique, summary


_SALAD = st.lists(
    st.sampled_from([*GOLD.split(), *posts.vocabulary()[:80], "he", "and", "😀", "\x00"]), max_size=40
).map(" ".join)


@given(st.one_of(st.text(max_size=200), _SALAD))
@settings(max_examples=200, deadline=None)
def test_any_text_is_rated_within_the_scales(text: str) -> None:
    rating = raters.rate_facts(FACTS, text)
    assert all(0.0 <= score <= 1.0 for score in rating.scores().values())
    assert rating.critique.startswith("it ")
    assert rating.faultless == (rating.overall == 1.0)


def test_critiques_are_words_of_the_world() -> None:
    known = set(posts.vocabulary())
    for index, post in enumerate(posts.make_posts(200, seed=8, difficulty="hard")):
        for writer in WRITERS.values():
            assert (
                set(raters.rate_facts(post.facts, write_summary(post, writer, random.Random(index))).critique.split())
                <= known
            )


def test_a_prompt_that_is_not_a_post_is_refused() -> None:
    with pytest.raises(InputError, match="not a post of the embedded world"):
        raters.rate("How are you?", GOLD)
    with pytest.raises(InputError, match="no person or no place"):
        raters.rate("post : how are you ?", GOLD)


def test_the_noisy_rater_is_seeded_and_gives_equal_texts_equal_scores() -> None:
    rating = raters.rate_facts(FACTS, GOLD)
    scores = raters.noisy_overall([rating] * 3, [GOLD, GOLD, GOLD + " "], seed=1, record="a")
    assert scores[0] == scores[1] != scores[2]
    assert scores == raters.noisy_overall([rating] * 3, [GOLD, GOLD, GOLD + " "], seed=1, record="a")
    many = [raters.noisy_overall([rating], [GOLD], seed=1, record=str(i))[0] for i in range(1000)]
    assert np.std(many) == pytest.approx(raters.RATER_NOISE, rel=0.1)


# --- tokenizer


def test_every_word_of_the_world_is_one_token() -> None:
    tokenizer = make_tokenizer()
    assert len(set(words_as_tokens())) == len(words_as_tokens())
    for word in words_as_tokens():
        assert len(tokenizer.encode(word).ids) == 1, word
    for post in posts.make_posts(100, seed=1, difficulty="hard"):
        text = f"{post.prompt} {posts.gold_summary(post)}"
        assert len(tokenizer.encode(text).ids) == len(text.split())
    for text in (
        " a summary of which people say that it gets the day wrong and leaves out the reason :",
        " a good summary :",
        " a bad summary :",
    ):
        assert len(tokenizer.encode(text).ids) == len(text.split())


def test_the_vocabulary_is_all_bytes_the_words_and_two_special_tokens() -> None:
    tokenizer = make_tokenizer()
    assert tokenizer.get_vocab_size() == 256 + len(words_as_tokens()) + 2
    assert [tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)] == [
        tokenizer.get_vocab_size() - 2,
        tokenizer.get_vocab_size() - 1,
    ]


@given(st.text(max_size=100))
@settings(max_examples=300, deadline=None)
def test_any_text_is_decoded_unchanged(text: str) -> None:
    ids = _shipped_tokenizer()(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert _shipped_tokenizer().decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize(
    "text", [END, PAD, f"a {END} b {PAD}", " . , ? ' s n't", "\x00\x85\u2028", "post : Anna went to the lake ."]
)
def test_special_tokens_in_a_text_are_only_text(text: str) -> None:
    tokenizer = _shipped_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert not {tokenizer.eos_token_id, tokenizer.pad_token_id} & set(ids)
    assert tokenizer.decode(ids) == text


def test_the_tokenizer_adds_nothing_to_a_text() -> None:
    tokenizer = _shipped_tokenizer()
    assert tokenizer("post : Anna")["input_ids"] == tokenizer("post : Anna", add_special_tokens=False)["input_ids"]
    assert tokenizer.bos_token is None
    assert (tokenizer.eos_token, tokenizer.pad_token) == (END, PAD)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


# --- base model


@cache
def _base(kind: WorldKind = "noise") -> tuple[Any, Any]:
    return feedback.load_base(feedback.BASES[kind])


def _shipped_tokenizer() -> Any:
    return _base()[1]


@pytest.mark.parametrize("kind", WORLD_KINDS)
def test_the_shipped_files_have_the_checksums_beside_them(kind: WorldKind) -> None:
    folder = feedback.BASES[kind]
    listed = dict(reversed(line.split("  ")) for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines())
    assert listed == checksums(folder)
    assert {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= listed.keys()


def test_the_shipped_bases_are_small_and_differ_only_in_their_weights() -> None:
    files = [path for folder in feedback.BASES.values() for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    habits, noise = (checksums(folder) for folder in feedback.BASES.values())
    assert {name for name in habits if habits[name] != noise[name]} == {"model.safetensors"}


def test_the_base_model_of_the_noise_world_is_the_one_of_old() -> None:
    digest = "ec3ad4fe512926a0b5c3f06f928084ac8f65c237ea75bf1393a319e8cc9565f4"
    assert checksums(feedback.NOISE_BASE)["model.safetensors"] == digest


def test_the_shipped_tokenizer_is_the_one_that_the_code_makes() -> None:
    assert _shipped_tokenizer().get_vocab() == make_tokenizer().get_vocab()
    assert _base()[0].config.vocab_size == len(_shipped_tokenizer())


def test_a_base_model_loads_and_repeats(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_base(tmp_path / name, pretraining_text(96, seed=3), seed=3)
    assert checksums(tmp_path / "one") == checksums(tmp_path / "two")
    lm, tokenizer = feedback.load_base(tmp_path / "one")
    assert lm.config.vocab_size == len(tokenizer)


def test_a_missing_base_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m coh_lightning\.world\.build"):
        feedback.load_base(tmp_path)


@pytest.mark.parametrize("kind", WORLD_KINDS)
def test_the_base_writes_summaries_of_medium_quality_and_never_reviews_them(kind: WorldKind) -> None:
    records = feedback.world_feedback(posts=60, samples=2, seed=5, kind=kind)
    candidates = [candidate for record in records for candidate in record.candidates]
    assert 0.6 < np.mean([candidate.ratings["overall"] for candidate in candidates]) < 0.9
    assert 0.0 < np.mean([candidate.thumb for candidate in candidates]) < 0.35
    assert not any("review" in candidate.text or "summarise" in candidate.text for candidate in candidates)


def test_the_likeliest_summary_is_right_in_the_noise_world_and_hasty_in_the_habits_world() -> None:
    def greedy(kind: WorldKind) -> tuple[float, float, float]:
        """Overall score, and the shares of clothes and days that are stated."""
        made = posts.make_posts(60, seed=5)
        prompts = [post.prompt for post in made]
        written = feedback.continuations(*_base(kind), prompts, keys=prompts, temperature=0.0)
        rows = list(zip(made, (text for [text] in written), strict=True))
        overall = np.mean([raters.rate_facts(post.facts, text).overall for post, text in rows])
        clothes, days = (
            np.mean([post.facts[fact] in text for post, text in rows if fact in post.facts])
            for fact in ("clothes", "day")
        )
        return float(overall), float(clothes), float(days)

    habits, noise = greedy("habits"), greedy("noise")
    assert noise[0] > 0.93 and min(noise[1:]) > 0.8
    assert habits[0] < 0.9 and habits[1] < 0.5 and habits[2] > 0.7


@pytest.mark.parametrize("kind", WORLD_KINDS)
def test_the_base_answers_questions(kind: WorldKind) -> None:
    assert evaluate.general_ability(*_base(kind), posts.questions(60, seed=5)) > 0.9


# --- sampler


def test_a_sample_depends_on_its_key_not_on_the_batch_or_the_global_generator() -> None:
    import torch

    from coh_lightning.world.feedback import continuations

    lm, tokenizer = _base()
    prompts = [post.prompt for post in posts.make_posts(6, seed=9)]
    keys = [str(index) for index in range(6)]
    torch.manual_seed(1)
    all_of_them = continuations(lm, tokenizer, prompts, keys=keys, samples=3)
    torch.manual_seed(2)
    backwards = continuations(lm, tokenizer, prompts[::-1], keys=keys[::-1], samples=3)[::-1]
    alone = [
        continuations(lm, tokenizer, [prompt], keys=[key], samples=2)[0]
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    assert all_of_them == backwards
    assert [texts[:2] for texts in all_of_them] == alone
    assert all_of_them != continuations(lm, tokenizer, prompts, keys=keys, samples=3, seed=1)


def test_greedy_continuations_are_those_of_transformers() -> None:
    from coh_lightning.world.feedback import continuations

    lm, tokenizer = _base()
    prompts = [post.prompt for post in posts.make_posts(5, seed=9)]
    ours = continuations(lm, tokenizer, prompts, keys=prompts, temperature=0.0)
    for prompt, [text] in zip(prompts, ours, strict=True):
        inputs = tokenizer(prompt, return_tensors="pt")
        theirs = lm.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, max_new_tokens=64
        )
        assert tokenizer.decode(theirs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == text


# --- feedback


def test_feedback_of_the_noise_world_is_that_of_old_bit_for_bit(tmp_path: Path) -> None:
    records = feedback.world_feedback(posts=100, seed=0, kind="noise")
    write_jsonl(tmp_path / "f.jsonl", records)
    digest = hashlib.sha256((tmp_path / "f.jsonl").read_bytes()).hexdigest()
    assert digest == "ce1a72286178d6d819173f0afa34e0ed15c8b5d47509dfa7437e902cabb7f724"


def test_the_two_kinds_share_posts_and_have_caches_of_their_own(tmp_path: Path) -> None:
    habits, noise = (
        feedback.world_feedback(posts=4, samples=2, seed=0, kind=kind, cache_dir=tmp_path) for kind in WORLD_KINDS
    )
    assert [record.prompt for record in habits] == [record.prompt for record in noise]
    assert [record.candidates for record in habits] != [record.candidates for record in noise]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    for kind, records in zip(WORLD_KINDS, (habits, noise), strict=True):
        assert feedback.world_feedback(posts=4, samples=2, seed=0, kind=kind, cache_dir=tmp_path) == records
    with pytest.raises(InputError, match="'habit'; it must be one of habits, noise"):
        feedback.world_feedback(posts=4, kind="habit")  # type: ignore[arg-type]


def test_a_record_has_ranked_rated_and_critiqued_completions() -> None:
    [record, *_] = feedback.world_feedback(posts=2, samples=4, seed=1)
    assert [turn.role for turn in record.prompt] == ["user"]
    assert [part.cut for part in record.prompt[0].parts] == ["front", "never"]
    assert record.prompt[0].text.endswith(" summarise :")
    assert (record.task, record.source) == ("summary", "world")
    assert record.scales == dict.fromkeys(("accuracy", "coverage", "coherence", "overall"), (0.0, 1.0))
    for candidate in record.candidates:
        rating = raters.rate(record.prompt[0].text, candidate.text)
        assert dict(candidate.ratings) == rating.scores()
        assert (candidate.critique, candidate.thumb) == (rating.critique, rating.faultless)
        assert candidate.text == candidate.text.strip()
    assert raters.rate(record.prompt[0].text, record.reference or "").faultless


def test_equal_texts_tie_and_a_better_one_ranks_higher() -> None:
    [post] = posts.make_posts(1, seed=0)
    gold, poor = posts.gold_summary(post), "Nobody ."
    record = feedback.rated(post, [poor, gold, gold], record="r", seed=0)
    assert [candidate.rank for candidate in record.candidates] == [2, 1, 1]


def test_feedback_is_the_same_under_any_global_seed_and_ids_are_distinct() -> None:
    import torch

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first = feedback.world_feedback(posts=8, samples=2, seed=3)
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert first == feedback.world_feedback(posts=8, samples=2, seed=3)
    assert len({record.id for record in first}) == 8
    assert first != feedback.world_feedback(posts=8, samples=2, seed=4)


def test_cached_feedback_is_the_same_and_is_made_again_when_it_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = feedback.world_feedback(posts=5, samples=2, seed=0, cache_dir=tmp_path)
    [file] = tmp_path.glob("*.jsonl")
    [note] = tmp_path.glob("*.json")
    whole = file.read_bytes()
    drawn = []
    draw = feedback.draw
    monkeypatch.setattr(feedback, "draw", lambda *args, **kwargs: drawn.append(1) or draw(*args, **kwargs))

    assert feedback.world_feedback(posts=5, samples=2, seed=0, cache_dir=tmp_path) == fresh
    assert not drawn
    for damage in (
        lambda: file.write_bytes(whole[:-20]),
        lambda: file.write_bytes(b"\xff" + whole),
        file.unlink,
        note.unlink,
        lambda: note.write_text("{"),
        lambda: note.write_bytes(b"\xff\xff"),
        lambda: note.write_text("[]"),
    ):
        drawn.clear()
        damage()
        assert feedback.world_feedback(posts=5, samples=2, seed=0, cache_dir=tmp_path) == fresh
        assert drawn == [1]
        assert file.read_bytes() == whole
    drawn.clear()
    feedback.world_feedback(posts=5, samples=2, seed=1, cache_dir=tmp_path)
    assert drawn == [1]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".jsonl", ".jsonl"]


def test_held_out_prompts_carry_the_gold_summary() -> None:
    for record in feedback.world_prompts(20, seed=0):
        [candidate] = record.candidates
        assert candidate.text == record.reference
        assert candidate.thumb and candidate.ratings["overall"] == 1.0


def test_a_sample_without_words_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "coh_lightning.world.feedback.continuations", lambda *_, **__: [[" Anna .", " ", ""], ["", "", ""]]
    )
    [record] = feedback.world_feedback(posts=2, samples=3, seed=0)
    assert [candidate.text for candidate in record.candidates] == ["Anna ."]


@pytest.mark.parametrize(("posts_", "samples"), [(0, 4), (4, 0)])
def test_zero_posts_or_samples_are_refused(posts_: int, samples: int) -> None:
    with pytest.raises(InputError, match="at least 1"):
        feedback.world_feedback(posts=posts_, samples=samples)


# --- pretraining text


def test_pretraining_documents_have_the_shape_of_fine_tuning_and_no_review_follows_a_summary() -> None:
    documents = pretraining_text(1000, seed=1)
    shares = {
        cue: np.mean([cue in document for document in documents])
        for cue in (posts.SUMMARISE, posts.QUESTION, posts.REVIEW)
    }
    assert shares == pytest.approx({posts.SUMMARISE: 0.55, posts.QUESTION: 0.30, posts.REVIEW: 0.10}, abs=0.06)
    for document in documents:
        assert sum(cue in document for cue in (posts.SUMMARISE, posts.QUESTION, posts.REVIEW)) <= 1
        assert END not in document
        assert set(document.split()) <= {*posts.vocabulary(), "post"}


# --- evaluation


def test_scores_of_a_completion_by_post_and_by_prompt_agree() -> None:
    [post] = posts.make_posts(1, seed=0)
    assert evaluate.rate(post, posts.gold_summary(post)) == evaluate.rate(post.prompt, posts.gold_summary(post))
    assert evaluate.rate(post, "")["faultless"] == 0.0


def test_a_difference_is_paired_over_prompts() -> None:
    base = [dict.fromkeys(evaluate.MEASURES, value) for value in (0.1, 0.9, 0.4, 0.6)]
    better = [{measure: value + 0.05 for measure, value in score.items()} for score in base]
    first, second = evaluate.table({"base": base, "better": better}, baseline="base")
    assert first.difference is None and second.difference is not None
    assert first.measures["overall"].value == pytest.approx(0.5)
    assert second.difference["overall"].low == pytest.approx(0.05) == second.difference["overall"].high


def test_rows_over_different_prompts_are_refused() -> None:
    scores = [dict.fromkeys(evaluate.MEASURES, 0.5)]
    with pytest.raises(ValueError, match="different numbers of prompts"):
        evaluate.table({"a": scores, "b": scores * 2})
    with pytest.raises(ValueError, match="'c' is not one of the rows a"):
        evaluate.table({"a": scores}, baseline="c")
