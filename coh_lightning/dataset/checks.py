"""What a data module, its Trainer and its model must agree on: checked before a model is loaded or data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coh_lightning.errors import InputError, counted
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from coh_lightning.dataset.feedback_data import FeedbackData


def check_arguments(data: FeedbackData) -> None:
    """Raises InputError naming the key and what was given."""
    prompt, chain, row = data.max_prompt_tokens, data.max_chain_tokens, data.row_tokens
    low, high = data.fcm_range
    shares = data.validation_share, data.test_share
    if not 0 < prompt < chain:
        found = f"data.max_prompt_tokens is {prompt} and data.max_chain_tokens {chain}"
        raise InputError(f"{found}; the prompt must leave room for an output.")
    if chain > row:
        found = f"data.max_chain_tokens is {chain} and data.row_tokens {row}"
        raise InputError(f"{found}; a row must have room for the longest chain.")
    if not 0 <= low <= high < 1:
        raise InputError(f"data.fcm_range is {[low, high]}; it must be [low, high] with 0 <= low <= high < 1.")
    if min(shares) < 0 or sum(shares) >= 1:
        found = f"data.validation_share is {shares[0]} and data.test_share {shares[1]}"
        raise InputError(f"{found}; together they must leave something to train on.")
    if data.pretraining_weight < 0:
        raise InputError(f"data.pretraining_weight is {data.pretraining_weight}; it can't be negative (0: off).")
    if data.feedback is not None and data.sources is not None:
        named = counted(len(data.sources), "source")
        raise InputError(
            f"data.feedback is '{data.feedback}' and data.sources names {named}; give one of "
            "the two (coh_lightning.feedback.sources.Records reads such a file among others)."
        )
    if data.feedback is None and data.sources is None:
        raise InputError(
            "data.feedback is not set; name a file of records (data.feedback=FILE), or data.sources, or "
            "data.feedback=world for the feedback of the embedded world."
        )
    for key, kind in (("method", Method), ("wording", Wording), ("prompt_format", PromptFormat)):
        value = getattr(data, key)
        if not isinstance(value, kind):
            found = f"data.{key} is {value!r:.60}, a {type(value).__name__}"
            raise InputError(f"{found}; give a coh_lightning.{kind.__name__} (fields as in the files of conf/).")


def check_trainer(trainer: pl.Trainer) -> None:
    """Raises InputError if Lightning would share out the rows a second time."""
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise InputError(
            "trainer.use_distributed_sampler is on, but the plan gives each rank its rows; set it to false."
        )
