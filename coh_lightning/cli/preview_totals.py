"""The summary that `preview` prints below its records: counts of the whole training data, and why records were
rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coh_lightning.errors import counted

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule

REASONS = 8
"""Reasons of rejection that are listed each; the others are summed up."""


def totals(data: CoHDataModule) -> list[tuple[str, str]]:
    """(what, how much) of the whole training data."""
    report, train = data.report(), data.counts["train"]
    settings = f"method {data.method.name}, wording {data.wording.name}, format {data.prompt_format.kind}"
    records = f"{train.records:,}, of which {train.used:,} are used"
    held_out = {name: data.counts[name].records for name in ("validation", "test")}
    if any(held_out.values()):
        records += f" (besides {' and '.join(f'{number:,} for {name}' for name, number in held_out.items() if number)})"
    chains = f"{train.chains:,}"
    if train.completions_unused:
        chains += f"; {counted(train.completions_unused, 'completion')} in none of them"
    as_trees = "which `layout: separate` keeps"
    if data.layout == "tree":
        as_trees = f"{train.tokens_tree:,} as trees ({report['tree_saves']:.1f}x fewer)"
    cut = f"{counted(train.prompts_cut, 'prompt')} lost {counted(train.prompt_tokens_cut, 'token')}"
    dropped = f"{counted(train.links_cut, 'link')} and {counted(train.chains_dropped, 'whole chain')}"
    rows = [
        ("settings", f"{settings}, tokenizer {report['tokenizer']}"),
        ("records", records),
        ("chains", chains),
        ("tokens", f"{train.tokens_plain:,} in plain chains, {as_trees}"),
        ("in the loss", f"{train.tokens_in_loss:,} of the tokens in plain chains ({report['share_in_loss']:.1%})"),
        ("cut", f"{cut} (data.max_prompt_tokens {data.max_prompt_tokens})"),
        ("dropped", f"{dropped} (data.max_chain_tokens {data.max_chain_tokens})"),
        ("rejected", f"{len(data.rejected):,}"),
    ]
    reasons = rejections(data)
    rows += [("", f"{len(places):,}  {reason} (first: {places[0]})") for reason, places in reasons[:REASONS]]
    if others := reasons[REASONS:]:
        rows.append(("", f"{sum(len(places) for _, places in others):,}  for {len(others)} other reasons"))
    return rows + [("note", note) for note in [report["boundaries"], *report["notes"]]]


def rejections(data: CoHDataModule) -> list[tuple[str, list[str]]]:
    """(reason, where, with what is particular to the row) of all rejected records, the commonest reason first."""
    reasons: dict[str, list[str]] = {}
    for one in data.rejected:
        reasons.setdefault("unreadable" if one.unreadable else one.reason, []).append(
            (one.where or one.id) + (f": {one.detail}" if one.detail else "")
        )
    return sorted(reasons.items(), key=lambda item: -len(item[1]))
