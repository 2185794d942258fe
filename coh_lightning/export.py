"""`python -m coh_lightning export CHECKPOINT FOLDER`: a checkpoint of ours becomes a Hugging Face folder, which answers
under the good sentence wherever it is loaded.

    config.json, model.safetensors          the model, its adapters (LoRA) merged; or adapter_config.json, adapter_model.safetensors (--adapter)
    tokenizer.json, chat_template.jinja     the tokenizer, and a chat template that asks as in training (chat_template.py)
    generation_config.json                  the ids that end an output, and the cache on
    README.md                               the model card (model_card.py)

The folder is written aside, loaded afresh and compared with the trained model on a probe (export_check.py), and
renamed. That takes memory for one more copy of the model on the CPU, of the callback too. torch and transformers are
imported only when there is something to do.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coh_lightning.chat_template import asking_template, check_template, notes_on
from coh_lightning.commands import CommandParser
from coh_lightning.errors import InputError, words_of
from coh_lightning.files import written_aside
from coh_lightning.model_card import model_card
from coh_lightning.runs import CHECKPOINTS, CONFIG, newest_checkpoint

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


# --- the command


def main(argv: Sequence[str]) -> int:
    """The command `export`; gives its exit status.

    Raises:
        InputError: something that the user can put right.
    """
    options = _options().parse_args(argv)
    path, folder = Path(options.checkpoint), Path(options.folder)
    for note in export_checkpoint(path, folder, tokenizer=options.tokenizer, adapter=options.adapter):
        print(f"note: {note}", file=sys.stderr)
    print(f"{path} exported to {folder}")
    return 0


def _options() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m coh_lightning export",
        description=(
            "Make a Hugging Face folder of a checkpoint: safetensors, tokenizer, generation settings, a chat "
            "template that asks as in training, a model card."
        ),
        epilog="""examples:
  python -m coh_lightning export runs/mine/checkpoints/last.ckpt my-model
  python -m coh_lightning export runs/lora/checkpoints/last.ckpt my-adapters --adapter""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, or a folder of shards (FSDP)")
    parser.add_argument("folder", metavar="FOLDER", help="the folder to make; there must be nothing in it")
    parser.add_argument(
        "--adapter",
        action="store_true",
        help="of a model with adapters (LoRA) write these alone, for peft; without it they are merged",
    )
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="where the tokenizer is now, if it is no longer where it was in training"
    )
    return parser


# --- the work


def export_checkpoint(path: Path, folder: Path, *, tokenizer: str | None = None, adapter: bool = False) -> list[str]:
    """Make the folder of a checkpoint; gives what the user should know of it, a sentence each.

    Args:
        path: A file, or a folder of shards.
        folder: New or empty.
        tokenizer: Name or folder; None: the name that it was trained under.
        adapter: Write the adapters alone.

    Raises:
        InputError: no checkpoint of ours, a folder with something in it, another tokenizer than in training, adapters
            that don't fit their base, a folder that is not the model that was trained (export_check.py).
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; name a new folder.")
    if path.is_dir() and not (path / ".metadata").exists():
        other = newest_checkpoint(path)
        raise InputError(
            f"{path} is a folder and no checkpoint"
            + (f"; there is one at {other}." if other else "; look into the checkpoints/ folder of a run.")
        )
    from coh_lightning.model_tokenizer import load_tokenizer
    from coh_lightning.models import read_checkpoint, said

    loaded = load_tokenizer(tokenizer or said(path)["tokenizer"])
    run = path.parent.parent if path.parent.name == CHECKPOINTS and (path.parent.parent / CONFIG).is_file() else None
    return write_folder(folder, read_checkpoint(path), loaded, run=run, adapter=adapter)


def write_folder(
    folder: Path,
    checkpoint: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    run: Path | None = None,
    adapter: bool = False,
) -> list[str]:
    """Make the folder of a checkpoint that is in memory, aside, and rename it; gives what the user should know of it.

    Args:
        folder: One that is there already is replaced.
        checkpoint: `state_dict` and `CHECKPOINT_KEY` of a checkpoint of ours.
        tokenizer: That of the training; it is not changed.
        run: Run folder, whose data and figures go into the model card.

    Raises:
        InputError: see `export_checkpoint`.
    """
    from transformers import GenerationConfig

    from coh_lightning.export_check import COPIED, TOLERANCE, check_tokenizer, compare, load_folder, probe_logits
    from coh_lightning.models import CHECKPOINT_KEY
    from coh_lightning.prompter import Prompter

    saved = json.loads(checkpoint[CHECKPOINT_KEY])
    settings = saved["data"]
    prompter = Prompter.from_settings(settings, tokenizer)
    tokens, asks = prompter.tokens, prompter.conditions_by_task()
    sentences = next(iter(asks.values()))
    exported = copy.deepcopy(tokenizer)
    exported.chat_template = asking_template(tokens.layout, sentences)
    spelled = sorted(tokens.encoder.added.control)
    if hasattr(
        exported, "chat_control_tokens"
    ):  # what newer transformers spell out in messages where they are asked to sanitize
        exported.chat_control_tokens = spelled
    notes = [*tokens.notes, *notes_on(tokens, check_template(tokens, exported.chat_template, sentences))]
    lm = _model(saved, checkpoint["state_dict"])
    wanted = probe_logits(lm)
    generation = GenerationConfig(
        eos_token_id=list(tokens.stop_ids),
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokens.stop_ids[0],
        use_cache=True,
    )
    with written_aside(folder) as aside:
        aside.mkdir()
        parameters = sum(parameter.numel() for parameter in lm.parameters())
        tolerance = TOLERANCE[lm.dtype] if saved.get("lora") else COPIED
        if adapter:
            compare(wanted, probe_logits(_write_adapters(aside, lm, saved)), tolerance)
        else:
            lm = _merged(lm)
            lm.config.use_cache = True
            lm.save_pretrained(aside)
            compare(wanted, probe_logits(load_folder(aside, like=lm)), tolerance)
        exported.save_pretrained(aside)
        check_tokenizer(aside, tokenizer)
        generation.save_pretrained(aside)
        card = model_card(
            folder.name,
            saved,
            checkpoint,
            asks,
            parameters=parameters,
            notes=notes,
            run=run,
            adapter=adapter,
            spelled=spelled,
        )
        (aside / "README.md").write_text(card, encoding="utf-8")
    return notes


def _model(saved: Mapping[str, Any], state: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model with the weights of a checkpoint, which are not copied; adapters are in their places."""
    from coh_lightning.models import Recipe, adapters

    lora = adapters(saved)
    weights = {key.removeprefix("lm."): value for key, value in state.items()}
    if lora is not None and lora.quantise:  # the checkpoint holds the adapters alone
        lm = Recipe(saved["base"], lora=replace(lora, quantise=None)).build()
        lm.load_state_dict(weights, strict=False)
    else:
        lm = Recipe(from_config=saved["model"], dtype=_dtype(weights), lora=lora).outline(buffers=True)
        try:
            lm.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise InputError(
                f"the checkpoint has other weights than its own configuration ({words_of(error)}); it is damaged."
            ) from error
        if (
            lora is None
            # layers with adapters hold their weights elsewhere, where transformers would look in vain, or overwrite
            # them
        ):
            lm.tie_weights()
    return lm.eval()


def _dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    return next(value.dtype for key, value in weights.items() if value.is_floating_point() and "lora_" not in key)


def _merged(lm: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapters added to its weights, as a plain one; one without adapters as it is.

    Weights that were shared and no longer are, since adapters changed one of the layers, are written both: the
    configuration then says that nothing is tied.
    """
    if not getattr(lm, "_hf_peft_config_loaded", False):
        return lm
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    for layer in lm.modules():
        if isinstance(layer, BaseTunerLayer):
            own: Any = layer.get_base_layer()
            own.weight = nn.Parameter(
                own.weight.detach(), requires_grad=False
            )  # of its own, where it was shared: merging changes it in place
            layer.merge(safe_merge=True)  # into a copy: the weights may be those of a model in training
    weights = {key.replace(".base_layer.", "."): value for key, value in lm.state_dict().items() if ".lora_" not in key}
    plain = _plain(lm, weights, lm.config)
    if any(not torch.equal(weights[one], weights[other]) for one, other in plain.all_tied_weights_keys.items()):
        config = copy.deepcopy(lm.config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        return _plain(lm, weights, config)
    plain.tie_weights()
    return plain


def _plain(lm: PreTrainedModel, weights: Mapping[str, Tensor], config: PreTrainedConfig) -> PreTrainedModel:
    """A model of that configuration with these weights, which are not copied."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=lm.dtype)
    plain.load_state_dict(weights, assign=True)
    return plain


def _write_adapters(folder: Path, lm: PreTrainedModel, saved: Mapping[str, Any]) -> PeftModel:
    """The adapters in peft's form, with the name of the model that they belong to; gives that model with the adapters
    as peft loads them.

    Raises:
        InputError: there are no adapters, or their model can't be named.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import save_file

    from coh_lightning.models import Recipe
    from coh_lightning.worlds import WORLD, resolve

    if not saved.get("lora"):
        raise InputError("the model has no adapters (LoRA); export it without --adapter.")
    base = saved.get("base")
    if base is None:
        raise InputError(
            "the adapters belong to a model with random weights (model.from_config), which nobody else has; export "
            "it without --adapter."
        )
    own = {key.replace(".base_layer.", "."): value for key, value in lm.state_dict().items() if ".lora_" not in key}
    loaded = Recipe(base, dtype=lm.dtype).build()
    theirs = loaded.state_dict()
    if own.keys() != theirs.keys() or not all(torch.equal(own[key], theirs[key]) for key in own):
        raise InputError(
            f"the adapters were trained on other weights than those of '{base}' (perhaps on another checkpoint); "
            "export them without --adapter."
        )
    (config,) = lm.peft_config.values()
    config.base_model_name_or_path = str(resolve("model")) if base == WORLD else base
    # transformers' own writer adds the whole embedding where it has adapters, and fails where it shares its weights
    # with the head
    state = get_peft_model_state_dict(lm, adapter_name="default", save_embedding_layers=False)
    save_file(
        {f"base_model.model.{key}": value.contiguous() for key, value in state.items()},
        folder / "adapter_model.safetensors",
        {"format": "pt"},
    )
    config.inference_mode = True
    config.save_pretrained(folder)
    return PeftModel.from_pretrained(loaded, folder)
