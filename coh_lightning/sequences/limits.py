"""Sizes of records -> the token limits under which they would fit: the remedy when too many are too long.

A record fits if its prompt can be cut to `max_prompt_tokens` and one of its chains then takes at most
`max_chain_tokens`:

    least 100, prompt 700, output 400    max_prompt_tokens 512, max_chain_tokens 800    512 + 400 > 800: too long
                                         max_prompt_tokens 400, max_chain_tokens 800    400 + 400: fits
                                         max_prompt_tokens 512, max_chain_tokens 912    512 + 400: fits
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 0.9
"""Share of the records for a second limit besides that of all records: a few very long ones may need much more."""


@dataclass(frozen=True)
class Size:
    """Tokens of a record."""

    least: int  # of its prompt with everything cut that may be
    prompt: int  # of its whole prompt
    output: int  # of the feedback sentence and the output of its shortest chain of one link

    def fits(self, max_prompt_tokens: int, max_chain_tokens: int) -> bool:
        """Whether the method can use the record under these limits."""
        return self.least <= max_prompt_tokens and min(self.prompt, max_prompt_tokens) + self.output <= max_chain_tokens


def limits_that_fit(sizes: Sequence[Size], *, max_prompt_tokens: int, max_chain_tokens: int, row_tokens: int) -> str:
    """How many records would fit under which other limits, as part of a sentence; empty if no limit would help."""
    now = sum(size.fits(max_prompt_tokens, max_chain_tokens) for size in sizes)
    found: list[str] = []

    def say(prompt: int, chain: int, number: int) -> None:
        changed = [f"data.max_prompt_tokens={prompt}"] if prompt != max_prompt_tokens else []
        changed += [f"data.max_chain_tokens={chain}"] if chain != max_chain_tokens else []
        changed += [f"data.row_tokens={chain}"] if chain > row_tokens else []
        text = f"{number:,} with {' '.join(changed)}"
        if number > now and text not in found:
            found.append(text)

    prompt, number = _best_prompt_limit(sizes, max_prompt_tokens, max_chain_tokens)
    say(prompt, max_chain_tokens, number)
    for limit in dict.fromkeys((max_prompt_tokens, max([max_prompt_tokens, *(size.least for size in sizes)]))):
        chains = sorted(min(size.prompt, limit) + size.output for size in sizes if size.least <= limit)
        for share in (MOST, 1.0):
            if chains:
                chain = max(chains[int(np.ceil(share * len(chains))) - 1], max_chain_tokens, limit + 1)
                say(limit, chain, sum(size.fits(limit, chain) for size in sizes))
    limits = f"of {len(sizes):,} records that it could use {now:,} fit now, {', '.join(found)}"
    return f"set other limits ({limits})" if found else ""


def _best_prompt_limit(sizes: Sequence[Size], now: int, max_chain_tokens: int) -> tuple[int, int]:
    """The `max_prompt_tokens` under which most records fit (the nearest to `now`), and how many do.

    A record fits from its least prompt up to what its output leaves of a chain; without end if its whole prompt fits.
    """
    starts, ends = [], []
    for size in sizes:
        end = max_chain_tokens - 1 if size.prompt + size.output <= max_chain_tokens else max_chain_tokens - size.output
        if 0 < size.least <= end:
            starts.append(size.least)
            ends.append(end)
    first, last = np.sort(np.array(starts, np.int64)), np.sort(np.array(ends, np.int64))
    limits = np.unique(np.concatenate([first, last, [now]]))
    counts = np.searchsorted(first, limits, side="right") - np.searchsorted(last, limits, side="left")
    best = min(np.flatnonzero(counts == counts.max()), key=lambda at: abs(int(limits[at]) - now))
    return int(limits[best]), int(counts[best])
