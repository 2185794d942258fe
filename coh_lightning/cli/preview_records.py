"""From the prepared training data to what `preview` shows of it (preview_view)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from coh_lightning.cli.preview_view import Branch, ChainView, Cut, RecordView, Strip, TreeView

if TYPE_CHECKING:
    from coh_lightning.data import CoHDataModule
    from coh_lightning.sequences.chains import Chain
    from coh_lightning.sequences.encoder import Encoder
    from coh_lightning.sequences.prompt_format import Segment
    from coh_lightning.sequences.record_planner import PlannedRecord
    from coh_lightning.sequences.trees import Tree


def record_views(data: CoHDataModule) -> Iterator[RecordView]:
    """The records of the training split, in the order of a single feedback file or else of the mixture."""
    items: dict[int, list[Any]] = {}
    for item in data.plan.items:
        items.setdefault(item.record, []).append(item)
    prepared = list(enumerate(data.splits["train"]))
    if data.feedback is not None:  # one file: in its order, not in the mixture's
        prepared.sort(
            key=lambda numbered: [
                int(digits) for digits in re.findall(r"\d+", numbered[1].record.where.removeprefix(str(data.feedback)))
            ]
        )
    for place, (number, one) in enumerate(prepared, start=1):
        yield _viewed(data, place, one, items.get(number, []))


def _viewed(data: CoHDataModule, place: int, one: PlannedRecord, items: Sequence[Any]) -> RecordView:
    chains: list[ChainView] = []
    labels: list[list[str]] = []
    for chain in data.planner.chains(one):
        view, of_tokens = _chain_view(data, one, chain)
        chains.append(view)
        labels.append(of_tokens)
    trees = []
    parts = items if data.layout == "tree" and len(chains) > 1 else ()
    for number, item in enumerate(parts, start=1):
        tree = data.rows.tree(item, "train")
        # a node that several chains hold may have several roles: a good and a bad output that begin alike
        roles: list[dict[str, None]] = [{} for _ in range(tree.tokens)]
        for chain_number, path in zip(item.chains, tree.paths, strict=True):
            for node, label in zip(path.tolist(), labels[chain_number], strict=True):
                roles[node][label] = None
        root = _branch(data.prompter.tokens.encoder, tree, list(map("/".join, roles)))
        trees.append(TreeView(tree, root, f" {number} of {len(parts)}" if len(parts) > 1 else ""))
    return RecordView(place, data.counts["train"].used, one.record, one.prompt, tuple(chains), tuple(trees))


def _chain_view(data: CoHDataModule, one: PlannedRecord, chain: Chain) -> tuple[ChainView, list[str]]:
    """The chain, and the role of each of its tokens. Weights and ids are those that training gets, not the segments'
    own.
    """
    encoder = data.prompter.tokens.encoder
    tokens = data.prompter.tokens.chain(one.prompt, chain)
    parts: list[tuple[str, float, float, tuple[str | Cut, ...], int]] = []
    texts: list[tuple[str, float]] = []
    labels: list[str] = []
    for segment in data.prompter.tokens.segments(one.prompt, chain):
        start, ids = len(labels), encoder.segment_ids(segment)
        label = labels[-1] if segment.kind == "end" else "sentence" if segment.kind == "marker" else segment.kind
        labels += [label] * len(ids)
        gaps = _gaps(encoder, segment)
        if not len(ids) and not gaps:
            continue
        learned, unlearned = (float(tokens.learned[start]), float(tokens.unlearned[start])) if len(ids) else (0.0, 0.0)
        parts.append((label, learned, unlearned, _pieces(encoder, ids.tolist(), gaps), len(ids)))
        if len(ids):
            texts.append((encoder.decode(ids), learned - unlearned))
    if len(labels) != len(tokens):
        raise RuntimeError(
            f"the segments of a chain of record {one.record.id} have {len(labels)} tokens, the chain has {len(tokens)}"
        )
    strips = []
    for (label, learned, unlearned), group in groupby(parts, key=lambda part: part[:3]):
        listed = list(group)
        strips.append(
            Strip(
                label,
                tuple(piece for part in listed for piece in part[3]),
                sum(part[4] for part in listed),
                learned,
                unlearned,
            )
        )
    return ChainView(tokens, tuple(texts), tuple(strips)), labels


def _gaps(encoder: Encoder, segment: Segment) -> dict[int, int]:
    """Where truncation removed tokens from a segment: position among the tokens that are left -> how many.

    Each range loses tokens in one run, so the first place where the ids before and after differ is where it was.
    """
    gaps: dict[int, int] = {}
    if not segment.cut:
        return gaps
    before = encoder.segment_ids(segment._replace(cut=()))
    for count in range(1, len(segment.cut) + 1):
        after = encoder.segment_ids(segment._replace(cut=segment.cut[:count]))
        if lost := len(before) - len(after):
            different = before[: len(after)] != after
            place = int(different.argmax()) if different.any() else len(after)
            gaps[place] = gaps.get(place, 0) + lost
        before = after
    return gaps


def _pieces(encoder: Encoder, ids: Sequence[int], gaps: Mapping[int, int]) -> tuple[str | Cut, ...]:
    """The text of each token; bytes that only together spell a character make one piece."""
    pieces: list[str | Cut] = []
    waiting: list[int] = []
    for place in range(len(ids) + 1):
        if place in gaps or place == len(ids):
            if waiting:
                pieces.append(encoder.decode(waiting))
                waiting = []
            if place in gaps:
                pieces.append(Cut(gaps[place]))
            if place == len(ids):
                break
        waiting.append(ids[place])
        text = encoder.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) >= 4:  # a character has at most four bytes
            pieces.append(text)
            waiting = []
    return tuple(pieces)


def _branch(encoder: Encoder, tree: Tree, roles: Sequence[str], start: int = 0) -> Branch:
    """The part of the tree from node `start` on."""
    nodes = [start]
    while (children := _children(tree, nodes[-1])) and len(children) == 1:
        nodes.append(children[0])
    strips = []
    for (role, learned, unlearned), group in groupby(
        nodes, key=lambda node: (roles[node], float(tree.learned[node]), float(tree.unlearned[node]))
    ):
        listed = list(group)
        strips.append(
            Strip(role, _pieces(encoder, [int(tree.ids[node]) for node in listed], {}), len(listed), learned, unlearned)
        )
    return Branch(tuple(strips), tuple(_branch(encoder, tree, roles, child) for child in children))


def _children(tree: Tree, node: int) -> list[int]:
    """The children stand depth first: the first right behind the node, each further one where the one before it
    ends.
    """
    found = []
    child = node + 1
    while child < tree.subtree_end[node]:
        found.append(child)
        child = int(tree.subtree_end[child])
    return found
