"""The pretraining text (equation 3 of the paper) -> pieces of ids, and their trees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coh_lightning.feedback.sources.texts import read_texts
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.tokens import Ids, OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree
from coh_lightning.worlds import WORLD, resolve

WORLD_TEXTS = 4000
"""Pieces of text of the embedded world (`pretraining_text: [world]`)."""

TEXT = ("text", 0)
"""The kind of this text in the loss curves."""


def read_pieces(
    names: Sequence[str], tokens: ChainTokenizer, *, piece_tokens: int, seed: int, cache_dir: Path, notes: list[str]
) -> list[Ids]:
    """The ids of the texts of some files or data sets: each text begins with BOS, ends with the end token, and is cut
    into pieces of at most `piece_tokens`. `notes` gets what the user should know.
    """
    texts: list[str] = []
    for name in names:
        texts += resolve("text")(WORLD_TEXTS, seed=seed) if name == WORLD else read_texts(name, notes)
    encoder = tokens.encoder
    cache_fields(encoder, [Field(text, "head") for text in texts], cache_dir)
    begin, end = np.array(encoder.bos_ids, np.int32), np.array(tokens.stop_ids[:1], np.int32)
    pieces: list[Ids] = []
    for text in texts:
        ids = np.concatenate([begin, *encoder.encode_fields([Field(text, "head")]), end])
        pieces += [ids[start : start + piece_tokens] for start in range(0, len(ids), piece_tokens)]
    return [piece for piece in pieces if len(piece) > 1]


def text_tree(ids: Ids) -> Tree:
    """A piece as a tree without branches: all tokens learned but the first, which nothing predicts."""
    learned = np.ones(len(ids))
    learned[0] = 0.0
    return Tree.from_chains([Tokens(ids, learned, np.zeros(len(ids)), (OutputSpan(1, len(ids), *TEXT),))])
