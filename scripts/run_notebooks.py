"""Runs notebooks from the top and keeps what they print, without traces of this machine: `python
scripts/run_notebooks.py notebooks/*.ipynb` (minutes).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


def run(path: Path, folder: Path) -> Any:
    """The notebook, run in a folder, with plots as pictures in it and with its outputs as kept."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # where `coh` is
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)} | {"language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = kept(cell.outputs)
    return notebook


def kept(outputs: list[Any]) -> list[Any]:
    """Pictures, and what was printed as one text: no warnings and progress (stderr), no colors."""
    result: list[Any] = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            result.append(nbformat.v4.new_output("display_data", {"image/png": data["image/png"]}))
            continue
        text = data.get("text/plain", "") if data else output.get("text", "") if output.get("name") == "stdout" else ""
        if text and result and result[-1].output_type == "stream":
            result[-1].text += text
        elif text:
            result.append(nbformat.v4.new_output("stream", name="stdout", text=text))
    for output in result:
        if output.output_type == "stream":  # once it is whole: a code may be cut between two outputs
            output.text = re.sub(r" +$", "", re.sub(r"\x1b\[[\d;]*m", "", output.text), flags=re.MULTILINE)
    return result


def main() -> None:
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(Path(name), Path(folder))
        nbformat.write(notebook, name)
        print(name)


if __name__ == "__main__":
    main()
