"""The world's tokenizer: a byte-level BPE with a token for each word of the world (with the space before it) and for
each of the 256 bytes.

    "post : Anna went home early"  ->  post| :| Anna| went| home| |e|a|r|l|y

It has no merges: `ignore_merges` takes a word of the vocabulary whole, and every other word becomes its bytes, so any
text decodes exactly. It adds no BOS token. The special tokens are <|end|> (end of text) and <|pad|>.
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
    """The texts that are one token each: the words with the space before them, and the first word of a post without."""
    return [HEADER.split()[0], *(f" {word}" for word in vocabulary())]


def make_tokenizer() -> Tokenizer:
    """The tokenizer with the vocabulary bytes, words, special tokens, in this order."""
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
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (END, PAD)])
    return tokenizer


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Write tokenizer.json and tokenizer_config.json; returns the tokenizer as transformers loads it."""
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
