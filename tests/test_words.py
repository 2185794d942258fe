"""words.py: words in any script, and names in text."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coh_lightning.words import holds, mentions, words

PEOPLES_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("aéПिंन्我はター한กี่ခ်\u200d\u200c\u0301 .-_9")
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's hat, the HAT!", ["the", "cat", "s", "hat", "the", "hat"]),
        ("snake_case and x2", ["snake", "case", "and", "x2"]),
        (" ... ", []),
        ("Привет, МИР!", ["привет", "мир"]),
        ("हिन्दी में लिखा है।", ["हिन्दी", "में", "लिखा", "है"]),  # \w doesn't match combining marks
        ("نمی‌خواهم", ["نمی\u200cخواهم"]),
        ("اَلْعَرَبِيَّةُ", ["اَلْعَرَبِيَّةُ"]),
        ("한국어 문장입니다.", ["한국어", "문장입니다"]),
        ("我喜欢苹果2024年", ["我", "喜", "欢", "苹", "果", "2024", "年"]),
        ("カタカナ語ー。", ["カ", "タ", "カ", "ナ", "語", "ー"]),
        ("สวัสดี ครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("ភាសា", ["ភា", "សា"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("GPT写的text", ["gpt", "写", "的", "text"]),
    ],
)
def test_words_of_each_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_text_are_runs_of_letters_and_digits(text: str) -> None:
    assert words(text) == re.findall(r"[a-z0-9]+", text.lower())


@given(PEOPLES_TEXT)
def test_words_have_every_letter_and_digit_whatever_the_case_and_form(text: str) -> None:
    found = words(text)
    assert all(found)
    letters = [
        character
        for character in unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
        if unicodedata.category(character)[0] in "LN"
    ]
    assert [character for word in found for character in word if unicodedata.category(character)[0] in "LN"] == letters
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text)) == found


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("Is coh better?", "CoH", True),
        ("cohere", "coh", False),
        ("my_coh", "coh", False),
        ("coh-2 won", "coh-2", True),
        ("C++, of course", "c++", True),
        ("a.b", "axb", False),
        ("这是coh写的", "coh", True),
        ("大模型比较", "模型", True),
        ("हिन्दी", "हिन", False),  # a combining mark continues the word
        ("कौन हिन्दी है", "हिन्दी", True),
        ("cafe\u0301 Zoé", "café", True),
    ],
)
def test_a_name_is_found_as_a_word_of_its_own(text: str, name: str, found: bool) -> None:
    assert mentions(text, name) == found


def test_a_sentence_is_found_whatever_its_case_and_whitespace() -> None:
    assert holds("<s>Name a fruit.\n\nA helpful\nanswer:\n", "a helpful answer: ")
    assert not holds("Name a fruit.", "A helpful answer:")
    assert not holds("Name a fruit.", "") and not holds("Name a fruit.", " \n")
