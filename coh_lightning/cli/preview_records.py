"""From prepared training data to the views that `preview` shows (preview_view.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from coh_lightning.cli.preview_view import Branch, ChainView, Cut, RecordView, Strip, TreeView

if TYPE_CHECKING:
    from coh_lightning.dataset.feedback_data import FeedbackData
    from coh_lightning.sequences.chains import Chain
    from coh_lightning.sequences.encoder import Encoder
    from coh_lightning.sequences.prompt_format import Segment
    from coh_lightning.sequences.record_planner import PlannedRecord
    from coh_lightning.sequences.trees import Tree


def record_views(data: FeedbackData) -> Iterator[RecordView]:
    """The training records, in the order of a single feedback file or else of the mixture."""
    items: dict[int, list[Any]] = {}
    for item in data.plan.items:
        items.setdefault(item.record, []).append(item)

    def place_in_file(numbered: tuple[int, PlannedRecord]) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", numbered[1].record.where.removeprefix(str(data.feedback)))]

    prepared = list(enumerate(data.splits["train"]))
    if data.feedback is not None:
        prepared.sort(key=place_in_file)
    for place, (number, one) in enumerate(prepared, start=1):
        yield _viewed(data, place, one, items.get(number, []))


def _viewed(data: FeedbackData, place: int, one: PlannedRecord, items: Sequence[Any]) -> RecordView:
    shown = [_chain_view(data, one, chain) for chain in data.planner.chains(one)]
    chains = tuple(view for view, _ in shown)
    trees = []
    parts = items if data.layout == "tree" and len(chains) > 1 else ()
    for number, item in enumerate(parts, start=1):
        tree = data.rows.tree(item, "train")
        # a node of several chains may have several roles: a good and a bad output that begin alike
        roles: list[dict[str, None]] = [{} for _ in range(tree.tokens)]
        for chain_number, path in zip(item.chains, tree.paths, strict=True):
            for node, label in zip(path.tolist(), shown[chain_number][1], strict=True):
                roles[node][label] = None
        root = _branch(data.prompter.tokens.encoder, tree, list(map("/".join, roles)))
        trees.append(TreeView(tree, root, f" {number} of {len(parts)}" if len(parts) > 1 else ""))
    return RecordView(place, data.counts["train"].used, one.record, one.prompt, chains, tuple(trees))


def _chain_view(data: FeedbackData, one: PlannedRecord, chain: Chain) -> tuple[ChainView, list[str]]:
    """The chain, and the role of each token. Weights and ids are those of training, not the segments' own."""
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
        raise RuntimeError(f"record {one.record.id}: {len(labels)} tokens in the segments, {len(tokens)} in the chain")
    strips = []
    for (label, learned, unlearned), group in groupby(parts, key=lambda part: part[:3]):
        listed = list(group)
        pieces = tuple(piece for part in listed for piece in part[3])
        strips.append(Strip(label, pieces, sum(part[4] for part in listed), learned, unlearned))
    return ChainView(tokens, tuple(texts), tuple(strips)), labels


def _gaps(encoder: Encoder, segment: Segment) -> dict[int, int]:
    """Where truncation removed tokens from a segment: position among the tokens that are left -> how many.

    Each cut removes one run of tokens, which begins where the ids before and after first differ.
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
    for place, token in enumerate([*ids, None]):
        if waiting and (token is None or place in gaps):
            pieces.append(encoder.decode(waiting))
            waiting = []
        if place in gaps:
            pieces.append(Cut(gaps[place]))
        if token is not None:
            waiting.append(token)
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

    def look(node: int) -> tuple[str, float, float]:
        return roles[node], float(tree.learned[node]), float(tree.unlearned[node])

    strips = []
    for (role, learned, unlearned), group in groupby(nodes, key=look):
        ids = [int(tree.ids[node]) for node in group]
        strips.append(Strip(role, _pieces(encoder, ids, {}), len(ids), learned, unlearned))
    return Branch(tuple(strips), tuple(_branch(encoder, tree, roles, child) for child in children))


def _children(tree: Tree, node: int) -> list[int]:
    """Depth first: the first child is right after the node, each further one where the one before it ends."""
    found = []
    child = node + 1
    while child < tree.subtree_end[node]:
        found.append(child)
        child = int(tree.subtree_end[child])
    return found
