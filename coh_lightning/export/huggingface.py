"""`coh export CHECKPOINT FOLDER`: a checkpoint of ours becomes a Hugging Face folder, which answers
under the good sentence wherever it is loaded.

    config.json, model.safetensors          the model, its adapters (LoRA) merged; with --adapter instead
                                            adapter_config.json, adapter_model.safetensors
    tokenizer.json, chat_template.jinja     the tokenizer, and a chat template that prompts as in training
    generation_config.json                  the ids that end an output, and the cache on
    coh_lightning.json                      what prompts are made with, as in the checkpoint (for `coh chat`)
    README.md                               the model card (model_card.py)

The folder is written under a temporary name, loaded afresh, compared with the trained model on a probe
(export_check.py), and renamed: this needs one more copy of the model in memory, on the CPU. torch and transformers are
imported only when needed.
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

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, first_line
from coh_lightning.export.chat_template import check_template, exported_template, notes_on
from coh_lightning.export.hub import Hub
from coh_lightning.export.model_card import model_card
from coh_lightning.io import atomic_write
from coh_lightning.runs.run_folder import CHECKPOINTS, CONFIG, newest_checkpoint

SETTINGS = "coh_lightning.json"
"""File of a folder: `data`, the settings of its prompts, and `chat_template`, the tokenizer's own, which the folder's
replaces.
"""

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def main(argv: Sequence[str]) -> int:
    """The command `export`; returns its exit status. Raises `InputError` for what the user can fix."""
    parser = CommandParser(
        prog="coh export",
        description=(
            "Make a Hugging Face folder from a checkpoint: safetensors, tokenizer, generation settings, a chat "
            "template that prompts as in training, a model card."
        ),
        epilog="""examples:
  coh export runs/mine/checkpoints/last.ckpt my-model
  coh export runs/lora/checkpoints/last.ckpt my-adapters --adapter
  coh export runs/mine/checkpoints/last.ckpt my-model --push-to-hub me/my-model""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a file, or a folder of shards (FSDP)")
    parser.add_argument("folder", metavar="FOLDER", help="the folder to make; new or empty")
    only = "write only the adapters (LoRA) of the model, for peft; without it they are merged"
    parser.add_argument("--adapter", action="store_true", help=only)
    moved = "where the tokenizer is now, if it has moved since training"
    parser.add_argument("--tokenizer", metavar="NAME", help=moved)
    hub_help = (
        "send the folder to this repository of the Hugging Face hub, once it has passed its checks; a new one is "
    )
    hub_help += "private"
    parser.add_argument("--push-to-hub", metavar="NAME", help=hub_help)
    options = parser.parse_args(argv)
    path, folder = Path(options.checkpoint), Path(options.folder)
    check_places(path, folder)
    hub = None if options.push_to_hub is None else Hub.for_pushing(options.push_to_hub)  # refused now, not at the end
    for note in export_checkpoint(path, folder, tokenizer=options.tokenizer, adapter=options.adapter):
        print(f"note: {note}", file=sys.stderr)
    print(f"{path} exported to {folder}")
    if hub is not None:
        print(f"sent to {hub.push(folder)}")
    return 0


def export_checkpoint(path: Path, folder: Path, *, tokenizer: str | None = None, adapter: bool = False) -> list[str]:
    """Make the folder of a checkpoint; returns what the user should know about it, a sentence each.

    Args:
        path: A file, or a folder of shards.
        folder: New or empty.
        tokenizer: Name or folder; None: the name in training.
        adapter: Write only the adapters.

    Raises:
        InputError: not one of our checkpoints, a folder that is not empty, another tokenizer than in training, adapters
            that don't fit their base, an exported folder that differs from the trained model (export_check.py).
    """
    check_places(path, folder)
    from coh_lightning.model.checkpoints import read_checkpoint, read_checkpoint_info
    from coh_lightning.model.tokenizer import load_tokenizer

    loaded = load_tokenizer(tokenizer or read_checkpoint_info(path)["tokenizer"])
    run = path.parent.parent if path.parent.name == CHECKPOINTS and (path.parent.parent / CONFIG).is_file() else None
    return write_folder(folder, read_checkpoint(path), loaded, run=run, adapter=adapter)


def check_places(path: Path, folder: Path) -> None:
    """Raises InputError if there is something in the folder already, or `path` is a folder without a checkpoint."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; name a new folder.")
    if path.is_dir() and not (path / ".metadata").exists():
        other = newest_checkpoint(path)
        hint = f"there is one at {other}." if other else "look into the checkpoints/ folder of a run."
        raise InputError(f"{path} is a folder and not a checkpoint; {hint}")


def write_folder(
    folder: Path,
    checkpoint: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    run: Path | None = None,
    adapter: bool = False,
) -> list[str]:
    """Make the folder of a checkpoint in memory, under a temporary name, and rename it; returns notes as above.

    Args:
        folder: Replaced if it exists.
        checkpoint: `state_dict` and `CHECKPOINT_KEY` of one of our checkpoints.
        tokenizer: That of the training; it is not changed.
        run: Run folder, whose data and figures go into the model card.

    Raises:
        InputError: see `export_checkpoint`.
    """
    from transformers import GenerationConfig

    from coh_lightning.export.export_check import COPIED, TOLERANCE, check_tokenizer, compare, load_folder, probe_logits
    from coh_lightning.generation.prompter import Prompter
    from coh_lightning.model.checkpoints import CHECKPOINT_KEY

    saved = json.loads(checkpoint[CHECKPOINT_KEY])
    prompter = Prompter.from_settings(saved["data"], tokenizer)
    tokens, conditions = prompter.tokens, prompter.conditions_by_task()
    sentences = next(iter(conditions.values()))
    exported = copy.deepcopy(tokenizer)
    exported.chat_template = exported_template(tokens.layout, sentences)
    spelled = sorted(tokens.encoder.added.control)
    if hasattr(exported, "chat_control_tokens"):  # what newer transformers spell out with sanitize_control_tokens
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
    with atomic_write(folder) as aside:
        aside.mkdir()
        parameters = sum(parameter.numel() for parameter in lm.parameters())
        tolerance = TOLERANCE[lm.dtype] if saved.get("lora") else COPIED
        if adapter:
            compare(wanted, probe_logits(_write_adapters(aside, lm, saved)), tolerance)
        else:
            lm = merged(lm)
            lm.config.use_cache = True
            lm.save_pretrained(aside)
            compare(wanted, probe_logits(load_folder(aside, like=lm)), tolerance)
        exported.save_pretrained(aside)
        check_tokenizer(aside, tokenizer)
        generation.save_pretrained(aside)
        settings = {"data": saved["data"], "chat_template": tokenizer.chat_template}
        (aside / SETTINGS).write_text(json.dumps(settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        card = model_card(
            folder.name, saved, checkpoint, conditions, spelled, notes, parameters=parameters, run=run, adapter=adapter
        )
        (aside / "README.md").write_text(card, encoding="utf-8")
    return notes


def _model(saved: Mapping[str, Any], state: Mapping[str, Tensor]) -> PreTrainedModel:
    """The model with the weights of a checkpoint, which are not copied; adapters are attached."""
    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.model.lora import adapters

    lora = adapters(saved)
    weights = {key.removeprefix("lm."): value for key, value in state.items()}
    if lora is not None and lora.quantize:  # the checkpoint has only the adapters
        lm = ModelSpec(saved["base"], lora=replace(lora, quantize=None)).build()
        lm.load_state_dict(weights, strict=False)
    else:
        dtype = next(it.dtype for key, it in weights.items() if it.is_floating_point() and "lora_" not in key)
        lm = ModelSpec(from_config=saved["model"], dtype=dtype, lora=lora).outline(buffers=True)
        try:
            lm.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            found = f"the checkpoint has other weights than its own configuration ({first_line(error)})"
            raise InputError(f"{found}; it is damaged.") from error
        # layers with adapters have their weights under other names, where transformers would miss or overwrite them
        if lora is None:
            lm.tie_weights()
    return lm.eval()


def merged(lm: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapters added to its weights, as a plain model; one without adapters as it is.

    Weights that were tied are written separately, and the configuration says so, if adapters changed one of the layers.
    """
    if not getattr(lm, "_hf_peft_config_loaded", False):
        return lm
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    for layer in lm.modules():
        if isinstance(layer, BaseTunerLayer):
            own: Any = layer.get_base_layer()
            # untied, since merging changes it in place
            own.weight = nn.Parameter(own.weight.detach(), requires_grad=False)
            layer.merge(safe_merge=True)  # into a copy: the weights may be those of a model in training
    weights = _without_adapters(lm)
    plain = _plain(lm, weights, lm.config)
    if any(not torch.equal(weights[one], weights[other]) for one, other in plain.all_tied_weights_keys.items()):
        config = copy.deepcopy(lm.config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        return _plain(lm, weights, config)
    plain.tie_weights()
    return plain


def _without_adapters(lm: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of a model under the names of its base model, adapters left out."""
    return {key.replace(".base_layer.", "."): value for key, value in lm.state_dict().items() if ".lora_" not in key}


def _plain(lm: PreTrainedModel, weights: Mapping[str, Tensor], config: PreTrainedConfig) -> PreTrainedModel:
    """A model with that configuration and these weights, which are not copied."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=lm.dtype)
    plain.load_state_dict(weights, assign=True)
    return plain


def _write_adapters(folder: Path, lm: PreTrainedModel, saved: Mapping[str, Any]) -> PeftModel:
    """Write the adapters in peft's form, with the name of their base model, and load that model with them.

    Raises:
        InputError: there are no adapters, or their base model has no name.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import save_file

    from coh_lightning.model.loading import ModelSpec
    from coh_lightning.worlds import TABLE, resolve

    if not saved.get("lora"):
        raise InputError("the model has no adapters (LoRA); export it without --adapter.")
    base = saved.get("base")
    if base is None:
        what = "the adapters belong to a model with random weights (model.from_config), which is not published"
        raise InputError(f"{what}; export it without --adapter.")
    own, loaded = _without_adapters(lm), ModelSpec(base, dtype=lm.dtype).build()
    theirs = loaded.state_dict()
    if own.keys() != theirs.keys() or not all(torch.equal(own[key], theirs[key]) for key in own):
        what = f"the adapters were trained on other weights than those of '{base}' (perhaps on another checkpoint)"
        raise InputError(f"{what}; export them without --adapter.")
    (config,) = lm.peft_config.values()
    config.base_model_name_or_path = str(resolve("model", base)) if base in TABLE else base
    # transformers' own writer adds the whole embedding if it has adapters, and fails if it is tied to the head
    state = get_peft_model_state_dict(lm, adapter_name="default", save_embedding_layers=False)
    save_file(
        {f"base_model.model.{key}": value.contiguous() for key, value in state.items()},
        folder / "adapter_model.safetensors",
        {"format": "pt"},
    )
    config.inference_mode = True
    config.save_pretrained(folder)
    return PeftModel.from_pretrained(loaded, folder)
