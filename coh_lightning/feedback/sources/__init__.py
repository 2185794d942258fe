"""Where feedback comes from: one adapter per format, and their mixture. `conf/data/` has an example of each."""

from coh_lightning.feedback.sources.base import Source
from coh_lightning.feedback.sources.counts import SourceCounts, counts
from coh_lightning.feedback.sources.fields import Fields, Piece
from coh_lightning.feedback.sources.hh import HH
from coh_lightning.feedback.sources.mapping import Mapping
from coh_lightning.feedback.sources.mix import load, most_often, stop_if_too_many_are_lost
from coh_lightning.feedback.sources.oasst import OASST
from coh_lightning.feedback.sources.own import Records
from coh_lightning.feedback.sources.prompts import split_by_prompt, without_prompts_of
from coh_lightning.feedback.sources.recognized import recognized
from coh_lightning.feedback.sources.summarize import Summarize
from coh_lightning.feedback.sources.trl import TRLPairs, TRLUnpaired
from coh_lightning.feedback.sources.votes import PairVotes
from coh_lightning.feedback.sources.webgpt import WebGPT

__all__ = [
    "HH", "OASST", "Fields", "Mapping", "PairVotes", "Piece", "Records", "Source", "SourceCounts", "Summarize",
    "TRLPairs", "TRLUnpaired", "WebGPT", "counts", "load", "most_often", "recognized", "split_by_prompt",
    "stop_if_too_many_are_lost", "without_prompts_of",
]  # fmt: skip
