"""What a model could do before: its perplexity on plain text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from coh_lightning.errors import InputError
from coh_lightning.rounds.ability import measure, window_nlls
from coh_lightning.world.posts import make_posts


def test_perplexity_is_over_the_windows_that_a_text_has(tmp_path: Path) -> None:
    text = " ".join(post.text for post in make_posts(40, seed=0))
    (tmp_path / "text.txt").write_text(text)
    nlls = window_nlls("world", text, windows=32, fewest=1)
    assert 1 < len(nlls) < 32 and nlls[:2] == window_nlls("world", text, windows=2)
    assert measure("world", str(tmp_path / "text.txt")) == {"perplexity": math.exp(sum(nlls) / len(nlls))}


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("Anna went to the market .")
    with pytest.raises(InputError, match=r"tokens, fewer than 1 window of 512; give a longer one\."):
        measure("world", str(tmp_path / "text.txt"))
