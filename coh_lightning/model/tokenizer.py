"""The tokenizer of a run: the model's own, or a named one that must equal it, id for id.

    model                        its own tokenizer
    NAME or FOLDER               the one beside the weights
    a checkpoint of ours         the one that it was trained with
    world                        that of the embedded world
    from_config                  none, so one must be given

The embedding may have more rows than the tokenizer has tokens (many models pad it); fewer are refused once the model is
built (`build.check_sizes`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.errors import InputError, first_line
from coh_lightning.sequences.encoder import Encoder
from coh_lightning.worlds import TABLE, WORLD, is_world, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from coh_lightning.model.loading import ModelSpec

GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""The classes of tokenizers without Python code of their own, as transformers 5 and 4 name it."""

PROBES = (
    "The quick brown fox doesn't jump over 1234567 lazy dogs: £3.50, 20 %!",
    "  two  spaces,\ttabs\n\nand\n   def f(x):\n\treturn x ** 2  # code",
    "Füße, naïve, Ελλάδα, Россия, हिन्दी, العربية, 日本語, 한국어, 👩‍🚀🏴",
    "",
)
"""Texts that equal tokenizers must encode alike, with the special tokens around them."""


@dataclass(frozen=True)
class Choice:
    """A tokenizer, and in `note` a warning if it could not be compared with the model's."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    note: str | None = None


def choose_tokenizer(named: str | None, spec: ModelSpec | None, feedback: str | None) -> Choice:
    """The tokenizer of a run, before any data is read.

    Args:
        named: `data.tokenizer`: a name or folder, `world`, or None for the model's own.
        spec: The model; None where there is none (a preview, a data module alone).
        feedback: A description of the training data; None for the embedded world's.

    Raises:
        InputError: no model is named for the user's own feedback; there is no tokenizer, or it is not the model's.
    """
    if spec is not None and spec.name_or_path is None and spec.from_config is None:
        if feedback is not None:
            world = feedback.strip("'") if feedback.strip("'") in TABLE else WORLD
            raise InputError(
                f"model.name_or_path is not set and the feedback is {feedback}; name a model (model.name_or_path=NAME "
                f"or FOLDER), or model.name_or_path={world} for the small base of the embedded world."
            )
        spec = replace(spec, name_or_path=WORLD)
    own = _own_name(spec)
    trust = spec is not None and spec.trust_remote_code
    if named is None:
        if own is None and feedback is not None:
            why = "there is no model to take it from" if spec is None else "a model made by model.from_config has none"
            raise InputError(f"data.tokenizer is not set, and {why}; give a name, a folder or {WORLD}.")
        choice = Choice(own or WORLD, load_tokenizer(own or WORLD, trust_remote_code=trust))
        return _as_trained_with(choice, spec) if spec is not None and spec.checkpoint is not None else choice
    choice = Choice(named, load_tokenizer(named, trust_remote_code=trust))
    if own is None or spec is None:
        return choice
    if spec.checkpoint is not None:
        return _as_trained_with(choice, spec)
    try:
        theirs = load_tokenizer(own, trust_remote_code=trust)
    except InputError as error:
        why = str(error).split("; ")[0].rstrip(".")
        note = f"data.tokenizer is '{named}', and the model '{own}' has no tokenizer to compare it with ({why})"
        return replace(choice, note=f"{note}; make sure that they belong together.")
    if (difference := first_difference(theirs, choice.tokenizer)) is not None:
        what = f"data.tokenizer is '{named}', which is not that of the model '{own}': {difference}"
        raise InputError(f"{what}; leave data.tokenizer out, to take the model's.")
    return choice


def _own_name(spec: ModelSpec | None) -> str | None:
    """The model's own tokenizer, by name or folder; None where it has none."""
    if spec is None or spec.from_config is not None:
        return None
    if spec.checkpoint is None:
        return spec.name_or_path
    from coh_lightning.model.checkpoints import read_checkpoint_info

    return str(read_checkpoint_info(spec.checkpoint)["tokenizer"])


def _as_trained_with(choice: Choice, spec: ModelSpec) -> Choice:
    """The choice, if its hash is the one in the model's checkpoint."""
    from coh_lightning.model.checkpoints import read_checkpoint_info

    assert spec.checkpoint is not None
    saved = read_checkpoint_info(spec.checkpoint)
    if Encoder(choice.tokenizer).tokenizer_hash == saved["data"]["tokenizer"]:
        return choice
    name, why = saved["tokenizer"], ""
    if name != choice.name:
        try:
            own = load_tokenizer(name, trust_remote_code=spec.trust_remote_code)
            difference = first_difference(own, choice.tokenizer)
            why = f": {difference}" if difference else ""
        except InputError as error:
            why = f": its own can't be loaded to compare them ({error})"
    raise InputError(
        f"The tokenizer '{choice.name}' is not the one that {spec.checkpoint} was trained with{why}; set "
        f"data.tokenizer to where that one is now (it was '{name}')."
    )


def load_tokenizer(name: str | None, *, trust_remote_code: bool = False) -> Any:
    """A tokenizer by name or folder; `world`, or None, is that of the embedded world. Raises InputError if there is
    none, or it has no vocabulary (transformers makes an empty one for a folder with only weights).
    """
    name = name or WORLD
    place = resolve("tokenizer", name) if is_world(name) else name
    try:
        tokenizer = _without_torch(Path(place)) or _by_transformers(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        what = f"The tokenizer '{name}' can't be loaded ({first_line(error)})"
        raise InputError(f"{what}; give a name on the hub or an existing folder.") from error
    except Exception as error:
        if type(error) is not Exception:  # the back end raises a bare Exception for a tokenizer.json that it can't read
            raise
        what = f"The tokenizer '{name}' can't be read ({first_line(error)})"
        raise InputError(f"{what}; it may be damaged, so fetch it again.") from error
    if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_decoder):
        place = f"the folder {name}" if name and Path(name).is_dir() else f"'{name}'"
        raise InputError(f"There is no tokenizer in {place} (no vocabulary); name one with data.tokenizer.")
    return tokenizer


def _by_transformers(place: str | Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer  # which imports torch, in seconds

    return AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)


def _without_torch(folder: Path) -> Any | None:
    """The tokenizer of a folder whose settings ask for nothing but its tokenizer.json, where `AutoTokenizer` would take
    the same class after reading the model's config; else None.
    """
    settings, model = folder / "tokenizer_config.json", folder / "config.json"
    if not settings.is_file() or not (folder / "tokenizer.json").is_file():
        return None
    given = json.loads(settings.read_text(encoding="utf-8"))
    kind = json.loads(model.read_text(encoding="utf-8")).get("model_type") if model.is_file() else None
    plain = given.get("tokenizer_class") in GENERIC and not {"auto_map", "fix_mistral_regex"} & given.keys()
    if not plain or kind not in (None, "llama", "gpt2"):
        return None
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder)


def first_difference(own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> str | None:
    """How two tokenizers differ: the first token with another id, or the first probe with other ids; or None."""
    ours, theirs = own.get_vocab(), other.get_vocab()
    if ours != theirs:
        pairs = {token: (ours.get(token), theirs.get(token)) for token in ours.keys() | theirs.keys()}
        ids = {token: pair for token, pair in pairs.items() if pair[0] != pair[1]}
        token = min(ids, key=lambda one: (min(number for number in ids[one] if number is not None), one))
        here, there = ("is not in" if number is None else f"has id {number} in" for number in ids[token])
        return f"the token {token!r} {here} the model's and {there} this one ({len(ids):,} tokens differ)"
    for text in PROBES:
        one, two = (tokenizer(text)["input_ids"] for tokenizer in (own, other))
        if one != two:
            return f"the text {text!r} has the ids {_some(one)} in the model's and {_some(two)} in this one"
    return None


def _some(ids: list[int]) -> str:
    return f"{ids[:8]}{' ...' if len(ids) > 8 else ''}"
