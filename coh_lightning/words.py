"""Words of a text in any script, for counts, n-grams and ROUGE; names in a text.

    The cat's hat              the, cat, s, hat                in lower case, without punctuation
    हिन्दी में लिखा               हिन्दी, में, लिखा                    combining marks belong to their word
    我喜欢2024年                我, 喜, 欢, 2024, 年             scripts without spaces: each letter is a word

Scripts without spaces (Chinese, Japanese, Yi, Thai, Lao, Khmer, Burmese, ...) need a dictionary to find words, so each
letter, with its marks, counts as one.
"""

from __future__ import annotations

import unicodedata

import regex

_ALONE = (
    r"[[\p{L}\p{Nl}]&&"
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}\p{Line_Break=Complex_Context}]]"
)
"""A letter of a script without spaces."""
_INSIDE = rf"(?:(?!{_ALONE})[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d])"
"""A character of a word in other scripts; Persian and Indic scripts have joiners (U+200C, U+200D) inside words."""
_WORD = regex.compile(rf"{_ALONE}\p{{M}}*|(?![\p{{M}}\u200c\u200d]){_INSIDE}+", regex.V1)
_LETTER = regex.compile(_ALONE, regex.V1)


def words(text: str) -> list[str]:
    """The words in lower case: runs of letters, combining marks and digits; single letters in scripts without spaces.

    ASCII text gives the runs of a-z and 0-9, as in Google's rouge_score. Composed and decomposed characters are equal.
    """
    return _WORD.findall(unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()))


def holds(text: str, sentence: str) -> bool:
    """Whether a text contains a sentence, ignoring case and whitespace."""
    text, sentence = (" ".join(unicodedata.normalize("NFC", one).casefold().split()) for one in (text, sentence))
    return bool(sentence) and sentence in text


def mentions(text: str, name: str) -> bool:
    """Whether a text contains a name as a whole word, ignoring case; in a script without spaces any place will do."""
    text, name = (unicodedata.normalize("NFC", one) for one in (text, name))
    before = "" if _LETTER.match(name) else rf"(?<!{_INSIDE}|_)"
    after = "" if _LETTER.match(name[-1:]) else rf"(?!{_INSIDE}|_)"
    return regex.search(rf"{before}{regex.escape(name)}{after}", text, regex.V1 | regex.IGNORECASE) is not None
