"""The embedded worlds by name: the meaning of `world`, `world:habits` and `world:noise` in a setting. A file or folder
of that name is `./world`.

Nothing else in the package imports a world's files::

    resolve("feedback")                 the function world.feedback.habits_feedback
    resolve("model", "world:noise")     the folder of that world's base model and its tokenizer
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from coh_lightning.errors import InputError, did_you_mean

NOTE = "world.json"
"""What a folder that is a world has in it (world/folder.py)."""
WORLD = "world"
"""The default: `world:habits`."""

Kind = Literal["feedback", "prompts", "model", "tokenizer", "text", "scorer", "critic", "ability"]


def _summaries(kind: str) -> dict[Kind, str]:
    """Posts, summaries of mixed quality, and raters that judge by rule; `kind` is that of the pretraining writers."""
    return {
        "feedback": f"coh_lightning.world.feedback:{kind}_feedback",
        "prompts": "coh_lightning.world.feedback:world_prompts",
        "model": f"coh_lightning.world.feedback:{kind.upper()}_BASE",
        "tokenizer": f"coh_lightning.world.feedback:{kind.upper()}_BASE",
        "text": f"coh_lightning.world.pretraining:{kind}_text",
        "scorer": "coh_lightning.world.evaluate:score",
        "critic": "coh_lightning.world.evaluate:critique",
        "ability": "coh_lightning.world.evaluate:ability",
    }


TABLE: dict[str, dict[Kind, str]] = {
    WORLD: _summaries("habits"),
    "world:habits": _summaries("habits"),
    "world:noise": _summaries("noise"),
    "world:constraints": {  # made by `python -m coh_lightning.world.instructions`, for any model
        "scorer": "coh_lightning.world.constraints:score",
        "critic": "coh_lightning.world.constraints:critique",
    },
}
"""World -> kind of setting -> import path."""


def is_world(name: str) -> bool:
    """Whether a name of data or of a model is that of a world. Raises InputError for `world:` and a name that is none,
    and for a path in a world's folder where there is nothing: as the name of a file or of a model on the hub they would
    be refused with another reason, or after many calls to the hub.
    """
    if name.startswith("world:") and name not in TABLE:
        raise InputError(f"there is no embedded world '{name}'{did_you_mean(name, TABLE)}")
    path = Path(name)
    if (path.parent / NOTE).is_file() and not path.exists() and not set("*?[") & set(path.name):
        parts = [one.name for one in path.parent.iterdir()]
        raise InputError(f"the world's folder {path.parent} has no '{path.name}'{did_you_mean(path.name, parts)}")
    return name in TABLE


def import_path(kind: Kind, name: str) -> str:
    """The import path of a world's part; any other name is an import path already. Raises InputError as `resolve`."""
    if name not in TABLE:
        return name
    if kind not in TABLE[name]:
        raise InputError(f"`{name}` has no {kind}; it has {', '.join(TABLE[name])}.")
    return TABLE[name][kind]


def resolve(kind: Kind, world: str = WORLD) -> Any:
    """The world's object for a setting of this kind. Raises InputError if the world has none."""
    module, _, name = import_path(kind, world).partition(":")
    return getattr(import_module(module), name)
