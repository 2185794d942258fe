"""Human studies whose truth is known: raters with a noise, a side they prefer and a threshold for ties, on prompts that
differ; and the folder that import would leave.

A rater's answer comes from the difference d = effect + prompt + side + noise, where prompt ~ N(0, spread) is shared by
all raters of a prompt, side is the rater's bias towards the left answer (plus where the model stands left, minus where
it stands right), noise ~ N(0, 1): model where d > threshold, baseline where d < -threshold, tie between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from coh_lightning.human_eval.study import digest

BASELINE, TIE, MODEL = 0, 1, 2


@dataclass(frozen=True)
class World:
    """What is true. Biases: one per rater, for the left side."""

    effect: float
    spread: float
    threshold: float
    biases: tuple[float, ...]

    def chances(self) -> np.ndarray:
        """P(baseline, tie, model) of a vote, over prompts, raters and sides."""
        wide = sqrt(1 + self.spread**2)
        shifts = [self.effect + side * bias for bias in self.biases for side in (1, -1)]
        model = np.mean([normal((shift - self.threshold) / wide) for shift in shifts])
        baseline = np.mean([normal((-shift - self.threshold) / wide) for shift in shifts])
        return np.array([baseline, 1 - baseline - model, model])

    def given_prompt(self, nodes: int = 80) -> tuple[np.ndarray, np.ndarray]:
        """Chances (raters, nodes, 3) of each rater's vote, sides averaged, given a prompt; and the prompts' weights
        (Gauss-Hermite).
        """
        x, weights = np.polynomial.hermite_e.hermegauss(nodes)
        out = np.zeros((len(self.biases), nodes, 3))
        for rater, bias in enumerate(self.biases):
            for node, u in enumerate(x * self.spread):
                for side in (1, -1):
                    shift = self.effect + u + side * bias
                    model, baseline = normal(shift - self.threshold), normal(-shift - self.threshold)
                    out[rater, node] += np.array([baseline, 1 - baseline - model, model]) / 2
        return out, weights / weights.sum()

    def alpha(self) -> float:
        """Krippendorff's alpha of endlessly many prompts, each rated by all raters."""
        given, weights = self.given_prompt()
        raters = len(self.biases)
        alike = np.mean(
            [
                (weights[:, None] * given[one] * given[two]).sum()
                for one in range(raters)
                for two in range(raters)
                if one != two
            ]
        )
        marginal = np.einsum("rnc,n->c", given, weights) / raters
        return float(1 - (1 - alike) / (1 - (marginal**2).sum()))

    def majority_share(self) -> float:
        """Share of the decided prompts that the model wins by the votes of all raters."""
        given, weights = self.given_prompt()
        lead = {0: np.ones(len(weights))}
        for rater in given:
            new: dict[int, np.ndarray] = {}
            for net, chance in lead.items():
                for side in (BASELINE, TIE, MODEL):
                    new[net + side - 1] = new.get(net + side - 1, 0) + chance * rater[:, side]
            lead = new
        won, lost = (
            sum((weights * chance).sum() for net, chance in lead.items() if (net > 0) == up and net)
            for up in (True, False)
        )
        return float(won / (won + lost))

    def left_share(self) -> float:
        """Share of the decided votes that go to the left answer, sides being drawn by a coin."""
        wide = sqrt(1 + self.spread**2)
        left = right = 0.0
        for bias in self.biases:
            for side in (1, -1):
                shift = side * self.effect + bias  # towards the left answer
                left, right = (
                    left + normal((shift - self.threshold) / wide),
                    right + normal((-shift - self.threshold) / wide),
                )
        return left / (left + right)


def normal(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def draw(
    world: World, random: np.random.Generator, prompts: int, shared: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Votes (prompts, raters) of one study: BASELINE, TIE, MODEL, or -1 where the rater did not see the prompt; and
    whether the model stood left.

    The first `shared` prompts (all by default) are rated by every rater, the others by one each, in turn.
    """
    raters = len(world.biases)
    left = random.random((prompts, raters)) < 0.5
    quality = world.effect + world.spread * random.standard_normal(prompts)[:, None]
    d = quality + np.where(left, 1, -1) * np.array(world.biases) + random.standard_normal((prompts, raters))
    votes = np.where(d > world.threshold, MODEL, np.where(d < -world.threshold, BASELINE, TIE))
    if shared is not None:
        alone = np.arange(prompts)[:, None] % raters == np.arange(raters)
        votes = np.where((np.arange(prompts)[:, None] < shared) | alone, votes, -1)
    return votes, left


def write_study(
    folder: Path,
    votes: Mapping[str, Sequence[tuple[str, str, np.ndarray, np.ndarray]]],
    *,
    systems: Sequence[str] = ("old", "new"),
    texts: Mapping[str, Any] | None = None,
    key: Mapping[str, Any] | None = None,
    checks: Sequence[Mapping[str, Any]] = (),
    seconds: float | None = 20.0,
) -> Path:
    """The folder that export and import leave, with these votes.

    Args:
        votes: attribute -> (baseline, model, votes, left) for each pair of systems, as `draw` gives them.
        texts: system -> the lengths of its texts by prompt, in words; three words each by default.
        key: what to change in key.json.
        checks: further lines of judgments; items that the key doesn't know are added as checks of their kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items: dict[str, dict[str, Any]] = {}
    entries: dict[str, dict[str, Any]] = {}
    lines = []
    for attribute, pairs in votes.items():
        for baseline, model, table, left in pairs:
            for prompt in range(len(table)):
                item = f"i-{systems.index(baseline)}{systems.index(model)}-{prompt}"
                written = [f"{name} " + "word " * (texts[name][prompt] if texts else 3) for name in (baseline, model)]
                items[item] = {
                    "item": item,
                    "prompt": f"Question {prompt}?",
                    "texts": written,
                    "sha": digest(f"Question {prompt}?", *written),
                }
                entries[item] = {
                    "prompt_id": f"p{prompt}",
                    "prompt_sha": "0",
                    "systems": [baseline, model],
                    "kind": "pair",
                    "expected": None,
                }
                for rater in range(table.shape[1]):
                    if table[prompt, rater] >= 0:
                        lines.append(
                            {
                                "item": item,
                                "row": f"{item}-r{rater + 1}",
                                "prompt_id": f"p{prompt}",
                                "rater": f"rater-{rater + 1}",
                                "attribute": attribute,
                                "choice": (baseline, "tie", model)[table[prompt, rater]],
                                "systems": [model, baseline] if left[prompt, rater] else [baseline, model],
                            }
                            | ({} if seconds is None else {"seconds": seconds + rater})
                        )
    for check in checks:
        lines.append(dict(check))
        if check["item"] not in entries:
            items[check["item"]] = {
                "item": check["item"],
                "prompt": "Check?",
                "texts": ["one", "two"],
                "sha": digest("Check?", "one", "two"),
            }
            entries[check["item"]] = {
                "prompt_id": check["prompt_id"],
                "systems": list(check["systems"]),
                "kind": check["check"],
                "expected": None,
            }
    rows = {line["row"]: {"check": line.get("check", "")} for line in lines}
    content = {
        "study": "s1",
        "seed": 1,
        "systems": list(systems),
        "items": entries,
        "rows": rows,
        "sampling": {},
        "unmatched": {},
        "exclusion": {},
        "against": None,
    }
    (folder / "key.json").write_text(json.dumps(content | dict(key or {})))
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items.values()))
    (folder / "judgments.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
