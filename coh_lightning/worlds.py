"""The embedded worlds by name: the meaning of `world` in a setting. A file or folder of that name is `./world`.

Nothing else in the package imports a world's files::

    resolve("feedback")     the function world.feedback.world_feedback
    resolve("model")        the folder of the base model and its tokenizer
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

WORLD = "world"
"""Posts, summaries of mixed quality, and raters that judge by rule."""

Kind = Literal["feedback", "model", "tokenizer", "text", "scorer", "critic"]

TABLE: dict[str, dict[Kind, str]] = {
    WORLD: {
        "feedback": "coh_lightning.world.feedback:world_feedback",
        "model": "coh_lightning.world.feedback:BASE",
        "tokenizer": "coh_lightning.world.feedback:BASE",
        "text": "coh_lightning.world.pretraining:pretraining_text",
        "scorer": "coh_lightning.world.evaluate:score",
        "critic": "coh_lightning.world.evaluate:critique",
    },
    "world:constraints": {  # made by `python -m coh_lightning.world.instructions`, for any model
        "scorer": "coh_lightning.world.constraints:score",
        "critic": "coh_lightning.world.constraints:critique",
    },
}
"""World -> kind of setting -> import path."""


def import_path(kind: Kind, name: str) -> str:
    """The import path of a world's part; any other name is an import path already."""
    return TABLE[name][kind] if name in TABLE else name


def resolve(kind: Kind, world: str = WORLD) -> Any:
    """The world's object for a setting of this kind."""
    module, _, name = TABLE[world][kind].partition(":")
    return getattr(import_module(module), name)
