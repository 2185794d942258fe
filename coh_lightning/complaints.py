"""What the command line's parser complains of, in one line: the key, what is wrong with it, and the nearest right one.

jsonargparse reports a mistyped key of a class from within the ten lines of a union that did not match. Its words are
looked through here for the one line that matters; what is not known here is passed on, shortened but unchanged.

    Parser key "data": ... Problem with given class_path 'coh_lightning.data.CoHDataModule': Option 'row_token' is not
    accepted ...
      -> there is no key data.row_token; did you mean data.row_tokens? (conf/quickstart.yaml:4)
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path, PurePath

import yaml

from coh_lightning import configurations, yaml_text
from coh_lightning.errors import InputError, did_you_mean, words_of

UNKNOWN = (
    re.compile(r"unrecognized arguments: (?P<key>.+)"),
    re.compile(r"Option '(?P<key>[^']+)' is not accepted$"),
    re.compile(r"(?:Subcommand|Group) '(?P<group>[^']+)' does not accept option '(?P<key>[^']+)'"),
)
PATH = re.compile(r'Parser key "([^"]+)"')
CLASS = re.compile(r"Problem with given class_path '([^']+)'")
FILE = re.compile(r"Unable to load config ['\"]([^'\"]+)['\"]|File does not exist: ['\"]([^'\"]+)['\"]")
NO_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)|module '([^']+)' has no attribute '([^']+)'|No module named '([^']+)'"
)
BASE = re.compile(r"Subtypes: \[(?:list\[|<class ')?([\w.]+)")
LONGEST_NAME = 255
"""Bytes in the name of a file, at most."""
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys with values",
}

OTHER_NAMES = {
    "model.model": (
        "model_name_or_path",
        "model_name",
        "model_path",
        "pretrained_model_name_or_path",
        "base_model",
        "checkpoint",
    ),
    "model.lr": ("learning_rate", "base_lr", "max_lr", "peak_lr"),
    "model.optimizer.warmup_share": ("warmup_ratio", "warmup_steps", "num_warmup_steps"),
    "model.optimizer.final_lr_share": ("min_lr", "min_lr_ratio", "lr_scheduler_type"),
    "model.optimizer.betas": ("adam_beta1", "adam_beta2"),
    "model.dtype": ("torch_dtype",),
    "model.attention": ("attn_implementation",),
    "model.lora.rank": ("lora_r", "lora_rank", "use_peft", "use_lora"),
    "model.lora.alpha": ("lora_alpha",),
    "model.lora.quantise": ("load_in_4bit", "load_in_8bit"),
    "model.generation.sampling.max_new_tokens": ("max_completion_length", "max_tokens"),
    "model.generation.sampling.temperature": ("temperature",),
    "data.feedback": ("dataset", "dataset_name", "dataset_path", "data_path", "train_file", "train_data", "data_files"),
    "data.tokenizer": ("tokenizer_name", "tokenizer_name_or_path", "tokenizer_path"),
    "data.rows_per_step": (
        *(
            "batch_size",
            "train_batch_size",
            "global_batch_size",
            "micro_batch_size",
            "per_device_train_batch_size",
            "per_device_batch_size",
        ),
        *("gradient_accumulation_steps", "grad_accum_steps"),
    ),
    "data.max_chain_tokens": (
        "max_length",
        "max_seq_length",
        "max_seq_len",
        "max_sequence_length",
        "model_max_length",
        "seq_length",
        "cutoff_len",
        "block_size",
    ),
    "data.max_prompt_tokens": ("max_prompt_length",),
    "data.num_workers": ("dataloader_num_workers",),
    "trainer.max_epochs": ("num_train_epochs", "num_epochs", "epochs", "n_epochs"),
    "trainer.max_steps": ("max_train_steps", "num_steps", "num_training_steps", "total_steps", "train_steps"),
    "trainer.gradient_clip_val": ("max_grad_norm", "grad_clip", "clip_grad_norm"),
    "trainer.precision": ("bf16", "fp16", "mixed_precision"),
    "trainer.log_every_n_steps": ("logging_steps", "log_steps", "log_interval"),
    "trainer.val_check_interval": ("eval_steps", "evaluation_strategy", "eval_strategy", "eval_interval"),
    "trainer.callbacks": ("save_steps", "save_strategy", "save_total_limit", "early_stopping_patience"),
    "trainer.devices": ("num_gpus", "gpus", "n_gpus", "num_processes"),
    "trainer.strategy": ("deepspeed", "fsdp"),
    "run.folder": ("output_dir", "out_dir", "save_dir"),
    "run.name": ("run_name", "experiment_name", "exp_name"),
    "run.wandb": ("report_to", "use_wandb"),
    "ckpt_path": ("resume_from_checkpoint", "resume", "resume_from"),
}
"""Our keys, and what other trainers call the same or nearly the same."""


def keys_of(thing: Callable[..., object], *, prefix: str = "") -> Iterator[str]:
    """The keys that a class takes from a configuration, those of nested dataclasses with dots."""
    try:
        hints = typing.get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    except (
        NameError
    ):  # a name that only type checkers see: the keys are known all the same, what is nested in them is not
        hints = {}
    for name in inspect.signature(thing).parameters:
        yield prefix + name
        for kind in (hints.get(name), *typing.get_args(hints.get(name))):
            if inspect.isclass(kind) and is_dataclass(kind):
                yield from keys_of(kind, prefix=f"{prefix}{name}.")


def nearest_key(key: str, known: Sequence[str]) -> str | None:
    """The known key nearest to a mistyped one, part by part; where a part has no near one, a known key with the same or
    nearly the same last part.

    With `model.lr` and `data.method.loss_on` known:   modle.lr -> model.lr    data.metod.loss_onn -> data.method.loss_on    lr -> model.lr
    """
    found: list[str] = []
    for part in key.split("."):
        here = ".".join(found) + "." if found else ""
        parts = {name[len(here) :].split(".")[0] for name in known if name.startswith(here)}
        near = [part] if part in parts else difflib.get_close_matches(part, sorted(parts), n=1, cutoff=0.6)
        if not near:
            last = key.split(".")[-1]
            endings: dict[str, str] = {}
            for name in known:
                endings.setdefault(name.split(".")[-1], name)
            near = difflib.get_close_matches(last, list(endings), n=1, cutoff=0.8)
            return endings[near[0]] if near else None
        found.append(near[0])
    return ".".join(found)


@dataclass(frozen=True)
class Typed:
    """What the user typed, and where: jsonargparse changes into the folder of the file that it reads."""

    argv: Sequence[str] = ()
    folder: Path = Path()

    def configs(self) -> Iterator[Path]:
        """The YAML files named in the arguments, whatever their names end in, and those that they name in turn."""
        waiting = [
            self.folder / word.split("=", 1)[-1]
            for before, word in pairwise(["", *self.argv])
            if before == "--config" or word.startswith("--config=") or word.endswith((".yaml", ".yml"))
        ]
        seen: set[Path] = set()
        while waiting:
            file = waiting.pop(0)
            if file in seen or not file.is_file():
                continue
            seen.add(file)
            yield file
            waiting += [
                file.parent / name
                for name in re.findall(r"[\w./-]+\.ya?ml", file.read_text(encoding="utf-8", errors="replace"))
            ]

    def shown(self, file: Path) -> str:
        """A path as the user would write it."""
        return os.path.relpath(file, self.folder) if file.is_relative_to(self.folder) else str(file)

    def line_of(self, name: str) -> str | None:
        """`file:line` of the first place that sets a key of this name, unless the command line itself does."""
        if any(re.match(rf"--(?:[\w.]+\.)?{re.escape(name)}(?:=|\+|$)", word) for word in self.argv):
            return None
        for file in self.configs():
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
                if re.search(rf"(?:^|[\s{{,]){re.escape(name)}\s*:", line.split("#")[0]):
                    return f"{self.shown(file)}:{number}"
        return None

    def broken(self) -> str | None:
        """What is wrong with the first of the files that is no YAML, or that holds no settings."""
        for file in self.configs():
            try:
                found = yaml.compose(
                    file.read_bytes(), yaml.SafeLoader
                )  # it says more of what is wrong than the loader in C
                yaml_text.load(file.read_bytes())
            except yaml_text.DuplicateKeyError as error:
                return f"{self.shown(file)}:{error.problem_mark.line + 1}: {error.problem}."
            except yaml.MarkedYAMLError as error:
                line = error.problem_mark.line + 1 if error.problem_mark else 1
                return f"{self.shown(file)}:{line}: this is no YAML: {error.problem or error.context}."
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                return f"{self.shown(file)}: this is no text: {words_of(error)}."
            if not isinstance(found, yaml.CollectionNode):
                return (
                    f"{self.shown(file)}: this file holds {'nothing' if found is None else 'no settings'}; "
                    "settings are written as key: value."
                )
        return None


def broken_reference(error: BaseException) -> InputError:
    """For a `${...}` in a configuration that names no setting."""
    return InputError(
        f"the configuration refers to something that is not there: {words_of(error).rstrip('.')}; ${{...}} stands "
        "for the setting that it names, "
        "and the text itself is written \\${...}."
    )


def complaint(message: str, *, known: Sequence[str], typed: Typed) -> str:
    """One line for a message of jsonargparse; `known` are the right keys of this command."""
    return re.sub(r"\S{200,}", lambda word: f"{word[0][:80]}...", _complaint(message, known=known, typed=typed))


def _complaint(message: str, *, known: Sequence[str], typed: Typed) -> str:
    if "Problems parsing config" in message:
        return typed.broken() or _shortened(message)
    if message.startswith("Unexpected config"):
        return (
            typed.broken()
            or "a file given with --config must hold settings, written as key: value, but one holds a list."
        )
    lines = message.split("\n")
    return (
        _unknown_key(lines, known, typed)
        or _missing_file(lines, typed)
        or _unknown_class(lines)
        or _wrong_value(lines)
        or _shortened(message)
    )


def _unknown_key(lines: Sequence[str], known: Sequence[str], typed: Typed) -> str | None:
    path: list[str] = []
    inside = None
    for line in lines:
        early = re.search(r"Option '([^']+)' is not accepted before subcommand '?(\w+)", line)
        if early:
            return f"{early[1]} was given before the command; write {early[2]} first: {early[2]} --config FILE."
        for pattern in UNKNOWN:
            match = pattern.search(line)
            if match is None:
                continue
            word = match["key"].split()[0]
            key = word.lstrip("-").split("=")[0].rstrip("+")
            if pattern is UNKNOWN[0] and not word.startswith("-"):
                return f"'{word}' is neither an option nor a value of one; options are written --key=value."
            if "Group" in match[0]:
                key = f"{match['group']}.{key}"
            key = ".".join(part for part in [*path, key] if part).replace("init_args.", "")
            here = ".".join(path) + "." if path else ""
            right = [f"{here}{name}" for name in keys_of(_import(inside))] if inside else known
            last = key.split(".")[-1].replace("-", "_")
            near = next(
                (ours for ours, theirs in OTHER_NAMES.items() if last in theirs and ours in known), None
            ) or nearest_key(key, right)
            where = typed.line_of(key.split(".")[-1])
            return (
                f"there is no key {key}"
                + (f"; did you mean {near}?" if near else "; --help lists them all.")
                + (f" ({where})" if where else "")
            )
        if match := PATH.search(line):
            path.append(match[1])
        if match := CLASS.search(line):
            inside = match[1]
    return None


def _missing_file(lines: Sequence[str], typed: Typed) -> str | None:
    for index, line in enumerate(lines):
        if not (match := FILE.search(line)):
            continue
        key = _key(lines[: index + 1]) or "config"
        word = match[1] or match[2]
        if len(os.fsencode(word)) > LONGEST_NAME:
            return f"{key} is {word!r:.60}...; it must be settings, or the name of a file that has them."
        if word.startswith(("{", "[")):
            try:
                yaml_text.load(word)
            except yaml.MarkedYAMLError as error:
                return f"{key} is no YAML: {error.problem or error.context}."
        # relative to the folder of the file that names it, which is where jsonargparse is now
        file = Path.cwd() / word
        if file.is_file():
            return Typed([f"--config={file}"], typed.folder).broken() or f"{key}: {word} can't be read as settings."
        # a bare word where a file was expected is most likely the name of one of ours
        folder = file.parent if file.suffix else typed.folder / "conf" / key.split(".")[-1]
        last, named = key.split(".")[-1], PurePath(word).parent
        places = [
            (folder, typed.shown(folder)),
            (configurations.ours(PurePath(typed.shown(folder))), typed.shown(folder)),
            (configurations.ours(named), str(named)),
        ]
        there = _yaml_files(places)
        ours = _yaml_files([(configurations.CONF / last, f"conf/{last}")])
        near = difflib.get_close_matches(file.stem, list(ours | there), n=1, cutoff=0.6)
        hint = (
            f"; did you mean {(ours | there)[near[0]]}?"
            if near
            else f"; there are {', '.join(there.values())}."
            if 0 < len(there) <= 12
            else "."
        )
        return f"{key}: there is no file {typed.shown(file)}{hint}"
    return None


def _yaml_files(places: Sequence[tuple[Path | None, str]]) -> dict[str, str]:
    """The names, without their endings, of the settings in some folders, and how a user would write each; the first
    folder that has a name counts.
    """
    found: dict[str, str] = {}
    for folder, shown in places:
        for path in sorted(folder.glob("*.yaml")) if folder is not None else ():
            found.setdefault(path.stem, str(PurePath(shown) / path.name))
    return found


def _unknown_class(lines: Sequence[str]) -> str | None:
    base, word = None, "this class"
    for index, line in enumerate(lines):
        if match := re.search(r"Expected a path but (\S+) either", line):
            word = match[1]
        if match := re.search(r"Import path does not correspond to a subclass of (\w+)", line):
            return f"{_key(lines[:index])}: {word} is no {match[1]}."
        if match := BASE.search(line):
            base = match[1]
        match = NO_CLASS.search(line)
        if match is None:
            continue
        key = _key(lines[:index])
        if match[4]:
            return f"{key}: there is no module {match[4]}."
        if match[2]:
            module = vars(
                sys.modules.get(match[2], object)
            )  # the parser has imported what a configuration names; a message alone imports nothing
            return f"{key}: there is no class {match[2]}.{match[3]}" + (
                did_you_mean(match[3], [name for name, value in module.items() if inspect.isclass(value)])
            )
        near = (
            did_you_mean(match[1], [kind.__name__ for kind in _subclasses(_import(base))], "")
            if base and "." in base
            else ""
        )
        return f"{key}: there is no class {match[1]}" + (near or ".")
    return None


def _wrong_value(lines: Sequence[str]) -> str | None:
    index = next(
        (
            index
            for index, line in enumerate(lines)
            if "Expected a " in line and "NoneType" not in line and "Expected a path" not in line
        ),
        None,
    )
    if index is None:
        return None
    path = _key(lines[:index])
    # a union complains once for each of its types, all at one depth
    depth = len(lines[index]) - len(lines[index].lstrip())
    same = [line for line in lines[index:] if len(line) - len(line.lstrip()) == depth]
    value = next(
        (found[1] for line in lines[index:] if (found := re.search(r"(?:Got value|Given value): (.*)", line))), ""
    )
    words = [
        word.strip(" '")
        for line in same
        if (found := re.search(r"Literal\[(.*?)\]", line))
        for word in found[1].split(",")
    ]
    kinds = [
        KINDS.get(found[1], f"a {found[1]}")
        for line in same
        if (found := re.search(r"Expected an? (?:<class '(?:\w+\.)*)?([\w\[\], .]+?)(?:'>)?(?:\. Got|$)", line))
        if "Literal" not in line
    ]
    kinds = [kind for kind in dict.fromkeys(kinds) if kind != "a NoneType"]
    if words:
        return f"{path} is {value!r}; it must be one of {', '.join(dict.fromkeys(words))}" + (
            did_you_mean(value, words)
        )
    if kinds == [KINDS["str"]] and not isinstance(_as_yaml(value), str):
        return f"{path} is {value}, and it must be text; in a file, write it in quotes."
    return f"{path} is {value!r}; it must be {' or '.join(kinds)}." if kinds else None


def _as_yaml(value: str) -> object:
    try:
        return yaml_text.load(value)
    except yaml.YAMLError:
        return value


def _key(lines: Sequence[str]) -> str:
    """The dotted key that the `Parser key` lines so far lead to; jsonargparse repeats some."""
    path: list[str] = []
    for line in lines:
        for part in PATH.findall(line):
            if not path or path[-1] != part:
                path.append(part)
    return ".".join(path).replace("init_args.", "")


def _shortened(message: str) -> str:
    """An unknown message without the lines in which a union says that it isn't None, on one line."""
    noise = ("Does not validate against", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    kept = [line.strip() for line in message.split("\n") if line.strip() and not line.strip().startswith(noise)]
    return " ".join(kept)


def _import(path: str | None) -> type[object]:
    module, _, name = (path or "builtins.object").rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if inspect.isclass(found) else object


def _subclasses(kind: type[object]) -> Iterator[type[object]]:
    child: type[object]
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)
