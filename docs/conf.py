"""Settings of Sphinx for the pages of this folder: `make docs`."""

from importlib import metadata
from typing import Any

from sphinx.application import Sphinx

project = "coh_lightning"
author = "the coh_lightning developers"
copyright = author
release = metadata.version("coh_lightning")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = False  # types of torch and Lightning have no pages here

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
default_role = "code"  # `x` in docstrings
autodoc_typehints = "none"  # the signature has them
autodoc_preserve_defaults = True  # a default is shown as it is written

html_theme = "furo"
html_title = "coh_lightning"
html_show_sphinx = False

VALUES = {"Method", "Wording", "PromptFormat", "OptimizerSettings", "LoRA", "Generation", "Sampling"}
"""Classes whose page lists only fields: their methods are for the package itself."""


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", _skips)
    app.connect("autodoc-process-docstring", _hide_colon, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _show_colon, priority=600)


def _skips(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    owner = getattr(getattr(member, "fget", member), "__qualname__", "").partition(".")[0]
    return skip or (owner in VALUES and (callable(member) or isinstance(member, property)))


def _hide_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what is before a colon in the first line of an attribute's docstring for its type."""
    if what in ("attribute", "property") and lines:
        lines[0] = lines[0].replace(":", "\0")


def _show_colon(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace("\0", ":") for line in lines]
