"""The world's tokenizer: a byte-level BPE in which each word of the world, with the blank before it, is one token, and
all 256 bytes stand beside.

    "post : Anna went home early"  ->  post| :| Anna| went| home| |e|a|r|l|y          (decoded: the same text, as for any text)

It has no merges: `ignore_merges` takes a word that is in the vocabulary whole, every other word falls into its bytes.
Nothing is added to a text, no begin-of-text token. The two special tokens are <|end|> (end of text) and <|pad|>.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coh_lightning.world.posts import HEADER, vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END = "<|end|>"
PAD = "<|pad|>"
MAX_LENGTH = 1024


def words_as_tokens() -> list[str]:
    """The texts that are one token each, beside the bytes: the words with their blank, and the word that begins a post,
    without one.
    """
    return [HEADER.split()[0], *(f" {word}" for word in vocabulary())]


def make_tokenizer() -> Tokenizer:
    """The tokenizer, made by hand from the word list: bytes first, then words, then the special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    for word in words_as_tokens():
        [(piece, _)] = splitter.pre_tokenize_str(word)
        pieces.append(piece)
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(END, special=True, normalized=False), AddedToken(PAD, special=True, normalized=False)]
    )
    return tokenizer


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Write tokenizer.json and tokenizer_config.json, and give back the tokenizer as transformers loads it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(),
        eos_token=END,
        pad_token=PAD,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
