"""Settings of Sphinx for the pages of this folder: `make docs`."""

from importlib import metadata

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
autodoc_default_options = {"members": True, "show-inheritance": False}

html_theme = "furo"
html_title = "coh_lightning"
html_show_sphinx = False
