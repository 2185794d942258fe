"""What a data module, its Trainer and its model must agree on: checked before a model is loaded or data is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coh_lightning.errors import InputError
from coh_lightning.sequences.method import Method
from coh_lightning.sequences.prompt_format import PromptFormat
from coh_lightning.sequences.wording import Wording

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from coh_lightning.data import CoHDataModule


def check_arguments(data: CoHDataModule) -> None:
    """Raises InputError naming the key and what was given."""
    if not 0 < data.max_prompt_tokens < data.max_chain_tokens:
        raise InputError(
            f"data.max_prompt_tokens is {data.max_prompt_tokens} and data.max_chain_tokens {data.max_chain_tokens}; "
            "the prompt must leave room for an output."
        )
    if data.max_chain_tokens > data.row_tokens:
        raise InputError(
            f"data.max_chain_tokens is {data.max_chain_tokens} and data.row_tokens {data.row_tokens}; a row must hold "
            "the longest chain."
        )
    if not 0 <= data.fcm_range[0] <= data.fcm_range[1] < 1:
        raise InputError(f"data.fcm_range is {list(data.fcm_range)}; it must be [low, high] with 0 <= low <= high < 1.")
    if data.validation_share < 0 or data.test_share < 0 or data.validation_share + data.test_share >= 1:
        raise InputError(
            f"data.validation_share is {data.validation_share} and data.test_share {data.test_share}; together they "
            "must leave something to train on."
        )
    if data.pretraining_weight < 0:
        raise InputError(
            f"data.pretraining_weight is {data.pretraining_weight}; a weight can't be negative (0 switches it off)."
        )
    if data.feedback is not None and data.sources is not None:
        raise InputError(
            f"data.feedback is '{data.feedback}' and data.sources names {len(data.sources)} source(s); give one of "
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
            raise InputError(
                f"data.{key} is {value!r:.60}, a {type(value).__name__}; give a coh_lightning.{kind.__name__} "
                "(its fields are those of the files in conf/)."
            )


def check_trainer(trainer: pl.Trainer) -> None:
    """Raises InputError if Lightning would share out the rows a second time."""
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        raise InputError(
            "trainer.use_distributed_sampler is on, but the plan already gives each rank its own rows; set it to false."
        )
