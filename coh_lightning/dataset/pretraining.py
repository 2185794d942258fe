"""The pretraining text (equation 3 of the paper) -> pieces of ids, and their trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coh_lightning.feedback.sources.texts import read_texts
from coh_lightning.sequences.anchored_tokenizer import Field
from coh_lightning.sequences.chain_tokenizer import ChainTokenizer
from coh_lightning.sequences.field_cache import cache_fields
from coh_lightning.sequences.tokens import Ids, OutputSpan, Tokens
from coh_lightning.sequences.trees import Tree
from coh_lightning.worlds import is_world, resolve

if TYPE_CHECKING:
    from coh_lightning.dataset.feedback_data import FeedbackData

WORLD_TEXTS = 4000  # pieces of text of the embedded world (`pretraining_text: [world]`)

TEXT = ("text", 0)  # the kind of this text in the loss curves


def read_pieces(data: FeedbackData, tokens: ChainTokenizer) -> list[Ids]:
    """The ids of `data.pretraining_text`: each with BOS and end token, in pieces of `data.row_tokens`."""
    texts: list[str] = []
    for name in (data.pretraining_text or []) if data.pretraining_rows_per_step else []:
        texts += resolve("text", name)(WORLD_TEXTS, seed=data.seed) if is_world(name) else read_texts(name, data.notes)
    encoder = tokens.encoder
    cache_fields(encoder, [Field(text, "head") for text in texts], data.cache_dir)
    begin, end = np.array(encoder.bos_ids, np.int32), np.array(tokens.stop_ids[:1], np.int32)
    pieces: list[Ids] = []
    for text in texts:
        ids = np.concatenate([begin, *encoder.encode_fields([Field(text, "head")]), end])
        pieces += [ids[start : start + data.row_tokens] for start in range(0, len(ids), data.row_tokens)]
    return [piece for piece in pieces if len(piece) > 1]


def text_tree(ids: Ids) -> Tree:
    """A piece as a tree without branches: all tokens learned but the first, which nothing predicts."""
    learned = np.ones(len(ids))
    learned[0] = 0.0
    return Tree.from_chains([Tokens(ids, learned, np.zeros(len(ids)), (OutputSpan(1, len(ids), *TEXT),))])
