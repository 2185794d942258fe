"""What a model wrote, to be read: `samples.html`, its completions under each feedback sentence side by side and round
by round, and the rows of a W&B table.

    prompt         good                    bad                      good accuracy   ...      one column for each ask
    ┌─────────┐    step 800 (newest)
    │ A post  │    Alice left on Monday.   The weather was bad.     ...
    │ ...     │    ▸ 2 older rounds: step 400, step 0                                        folded, the same columns
    └─────────┘

Above the prompts stands a table of means, each with its line over the rounds. Model output is hostile: every character
is escaped or spelt out, the page loads nothing, and its policy lets the browser run the page's own script and nothing
else. The page reads the same without the script. No torch, no Lightning.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from coh_lightning.completions import Completion
from coh_lightning.errors import InputError, counted
from coh_lightning.files import written_aside

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; base-uri 'none'; form-action "
    "'none'; require-trusted-types-for 'script'"
)
FAMILIES = ("good", "bad", "refined")
"""First words of the asks that have a colour of their own."""
FEW = 3
"""Up to so many columns leave room for the prompt at their side."""
MANY = 6
"""More boxes to tick than these stand in one line that scrolls."""
LONG = 480
"""A prompt of more characters is shown from its start, and whole when asked for."""
LONG_LINES = 7

EMPTY = '<span class="empty">(empty)</span>'

Column = Mapping[str, Sequence[Completion]]
"""Ask -> the samples of one prompt in one round."""
Measure = Callable[[Completion], float | None]
"""A number of a completion, None where it has none."""


@dataclass(frozen=True)
class Round:
    """All that was written at one time."""

    label: str
    prompts: Mapping[tuple[str, str], Column]
    """(prompt id, prompt hash) -> ask -> samples."""

    @property
    def completions(self) -> list[Completion]:
        return [one for column in self.prompts.values() for samples in column.values() for one in samples]


@dataclass(frozen=True)
class Trend:
    """One row of the table of figures: measure -> its mean in each round, the oldest first; None where there is
    none.
    """

    name: str
    family: str
    marker: str
    means: Mapping[str, Sequence[float | None]]


def write_samples(path: Path, rounds: Sequence[tuple[str, Sequence[Completion]]], *, limit: int = 50) -> Path:
    """Write the page beside its name and rename it, so that nobody ever reads half of one; the same rounds give the
    same bytes.

    Args:
        rounds: (label, completions), the oldest first; samples of one prompt and ask in their order.
        limit: Prompts that are shown, those of the newest round first. The figures are over all, and the page says how
            many are not shown.

    Returns:
        `path`.

    Raises:
        InputError: no completions, a limit below 1, a score that is no finite number, or a file that can't be written.
    """
    if limit < 1:
        raise InputError(f"{path}: the limit of prompts is {limit}; it must be at least 1.")
    if not any(completions for _, completions in rounds):
        raise InputError(
            f"{path}: there are no completions to show in {len(rounds)} round(s); write some first (`test`, "
            "`predict`, or `fit` with model.generation.write_every)."
        )
    text = _page([_round(label, completions) for label, completions in reversed(rounds)], limit)
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
    return path


def sample_rows(
    completions: Sequence[Completion], *, label: str | None = None
) -> tuple[list[str], list[list[str | int | float | None]]]:
    """(columns, rows) for a W&B table: one row for each completion, in the order given.

    `sample` counts the completions of a prompt under one ask from 1; `prompt` is what people read, without the feedback
    sentence where that is known. A score stands under `score_{name}`, None where a completion hasn't got it;
    `reference` is there when any completion has one. A `label` comes first, as `round`.

    Raises:
        InputError: a score that is no finite number.
    """
    scores = list(dict.fromkeys(name for one in completions for name in _scores(one)))
    referenced = any(one.reference is not None for one in completions)
    columns = [
        "prompt_id",
        "ask",
        "sample",
        "marker",
        "prompt",
        "text",
        "stop",
        "tokens",
        *(f"score_{name}" for name in scores),
    ]
    columns = [*(["round"] if label is not None else []), *columns, *(["reference"] if referenced else [])]
    seen: dict[tuple[str, str, str], int] = {}
    rows: list[list[str | int | float | None]] = []
    for one in completions:
        key = (one.prompt_id, one.prompt_sha, one.ask)
        seen[key] = seen.get(key, 0) + 1
        found = _scores(one)
        row = [
            one.prompt_id,
            one.ask,
            seen[key],
            one.marker,
            one.shown or one.prompt,
            one.text,
            one.stop,
            one.completion_tokens,
            *map(found.get, scores),
        ]
        rows.append([*([label] if label is not None else []), *row, *([one.reference] if referenced else [])])
    return columns, rows


def asks_in_order(asks: Iterable[str]) -> list[str]:
    """good, bad, then each attribute's pair (good accuracy, bad accuracy), then others as they come, then each round of
    refinement beside its fresh draw.
    """
    distinct = list(dict.fromkeys(asks))
    attributes = list(
        dict.fromkeys(
            rest for head, _, rest in (ask.partition(" ") for ask in distinct) if head in ("good", "bad") and rest
        )
    )

    def place(ask: str) -> tuple[int, int, int]:
        head, _, rest = ask.partition(" ")
        if head in ("good", "bad"):
            return (1, attributes.index(rest), head == "bad") if rest else (0, 0, head == "bad")
        if head in ("refined", "fresh") and rest.isdecimal():
            return (3, int(rest), head == "fresh")
        return (2, distinct.index(ask), 0)

    return sorted(distinct, key=place)


# ----------------------------------------------------------------------------------------------------------------
# figures


def _round(label: str, completions: Sequence[Completion]) -> Round:
    prompts: dict[tuple[str, str], dict[str, list[Completion]]] = {}
    for one in completions:
        prompts.setdefault((one.prompt_id, one.prompt_sha), {}).setdefault(one.ask, []).append(one)
    return Round(label, prompts)


def _scores(completion: Completion) -> dict[str, float]:
    for name, value in completion.scores.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(
                f"The completion '{completion.id}' has the score {name!r} = {value!r}; a score must be a finite number."
            )
    return {name: float(value) for name, value in completion.scores.items()}


def _measures(rounds: Sequence[Round]) -> dict[str, Measure]:
    """What is averaged, by name: each score, the length, and how it ended, as far as the completions say so."""
    every = [one for round in rounds for one in round.completions]
    measures: dict[str, Measure] = {}
    for name in dict.fromkeys(name for one in every for name in _scores(one)):
        measures[name] = lambda one, name=name: _scores(one).get(name)  # type: ignore[misc]
    if any(one.completion_tokens for one in every):
        measures[_free("tokens", measures)] = lambda one: float(one.completion_tokens)
    if any(one.stop for one in every):
        measures[_free("ended by itself", measures)] = lambda one: float(one.stop == "end")
    return measures


def _free(name: str, taken: Iterable[str]) -> str:
    """A scorer may have given a score that very name."""
    return f"{name} (counted)" if name in taken else name


def _trends(rounds: Sequence[Round], asks: Sequence[str], measures: Mapping[str, Measure]) -> list[Trend]:
    """A row for each ask: means over all of its completions."""
    trends = []
    for ask in asks:
        by_round = [
            [one for column in round.prompts.values() for one in column.get(ask, ())] for round in reversed(rounds)
        ]
        markers = {one.marker for written in by_round for one in written}
        means = {name: [_mean(map(measure, written)) for written in by_round] for name, measure in measures.items()}
        trends.append(Trend(ask or "no sentence", _family(ask), markers.pop() if len(markers) == 1 else "", means))
    return trends


def _gaps(rounds: Sequence[Round], asks: Sequence[str], measures: Mapping[str, Measure]) -> list[Trend]:
    """A row for each pair of asks that are compared, good minus bad and refined minus fresh: the mean over the prompts
    that have both.
    """
    trends = []
    for ask in asks:
        head, _, rest = ask.partition(" ")
        other = {"good": f"bad {rest}".strip(), "refined": f"fresh {rest}"}.get(head, "")
        if not other or other not in asks:
            continue
        means = {}
        for name, measure in measures.items():
            series: list[float | None] = []
            for round in reversed(rounds):
                sides = [
                    (_mean(map(measure, column.get(ask, ()))), _mean(map(measure, column.get(other, ()))))
                    for column in round.prompts.values()
                ]
                series.append(_mean(a - b for a, b in sides if a is not None and b is not None))
            means[name] = series
        trends.append(Trend(f"{ask} − {other}", "", "", means))
    return trends


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return math.fsum(found) / len(found) if found else None


def _family(ask: str) -> str:
    head = ask.partition(" ")[0]
    return head if head in FAMILIES else "other"


# ---------------------------------------------------------------------------------------------------------------- text


class _Spelt(dict[int, str]):
    """Code point -> how the page writes it, for `str.translate`; found out once for each character."""

    def __init__(self, sign: str) -> None:
        super().__init__()
        self.sign = sign

    def __missing__(self, code: int) -> str:
        character = chr(code)
        # the two joiners hold letters and emoji together and have no other effect
        plain = character in "\n\t\u200c\u200d" or unicodedata.category(character) not in (
            "Cc",
            "Cf",
            "Cs",
            "Co",
            "Cn",
            "Zl",
            "Zp",
        )
        self[code] = html.escape(character) if plain else self.sign.format(code)
        return self[code]


_CONTENT = _Spelt('<span class="control">U+{:04X}</span>')
_BARE = _Spelt("U+{:04X}")


def _safe(text: str) -> str:
    """Any text as content of an element. Characters that nobody sees become signs, but for line ends, tabs and
    joiners.
    """
    return text.translate(_CONTENT)


def _number(value: float) -> str:
    """About three digits, in as many places for all numbers of one size."""
    size = abs(value)
    if 0 < size < 0.0005:
        shown = f"{size:.1g}"
    else:
        shown = (
            f"{size:.3f}"
            if size <= 1
            else f"{size:.2f}"
            if size < 10
            else f"{size:.1f}"
            if size < 100
            else f"{size:,.0f}"
        )
    return f"−{shown}" if value < 0 else shown


# ---------------------------------------------------------------------------------------------------------------- the
# page


def _page(rounds: Sequence[Round], limit: int) -> str:
    """The page of these rounds, the newest first."""
    every = [one for round in rounds for one in round.completions]
    asks = asks_in_order(one.ask for one in every)
    keys = list(dict.fromkeys(key for round in rounds for key in round.prompts))
    systems = list(dict.fromkeys(one.system for one in every if one.system))
    writer = ", ".join(systems) or "the model"
    template = resources.files("coh_lightning").joinpath("samples.html").read_text(encoding="utf-8")
    rules = _choice_rules(len(asks), len(rounds))
    parts = {
        "POLICY": POLICY.format(
            script=_hash(_inside(template, "script")), style=_hash(_inside(template, "style").replace("@RULES@", rules))
        ),
        "RULES": rules,
        "TITLE": f"What {writer} writes".translate(_BARE),
        "FRONT": (
            f"<h1>What {_safe(writer)} "
            f"writes</h1>\n{_facts(rounds, every, len(asks), len(keys), limit)}{_figures(rounds, asks)}"
        ),
        "CHOICES": _choices(rounds, asks),
        "WIDTH": "few" if len(asks) <= FEW else "many",
        "PROMPTS": "".join(
            _prompt(number, key, rounds, asks, named=len(systems) > 1)
            for number, key in enumerate(keys[:limit], start=1)
        ),
    }
    # in one pass: what stands in the parts is never searched for places
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], template)


def _inside(template: str, element: str) -> str:
    return template.split(f"<{element}>", 1)[1].split(f"</{element}>", 1)[0]


def _hash(text: str) -> str:
    """A source of a Content-Security-Policy: the browser takes the text that has this hash, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def _facts(rounds: Sequence[Round], every: Sequence[Completion], asks: int, prompts: int, limit: int) -> str:
    span = (
        f"{len(rounds)} rounds, from {_safe(rounds[-1].label)} to {_safe(rounds[0].label)}, the newest first"
        if len(rounds) > 1
        else _safe(rounds[0].label)
    )
    lines = [
        f'<p class="facts">{span} · {counted(prompts, "prompt")} · {counted(asks, "feedback sentence")} · '
        f"{counted(len(every), 'completion')}</p>\n"
    ]
    values: dict[str, list[str]] = {}
    for one in every:
        for name, value in one.sampling.items():
            if str(value) not in values.setdefault(name, []):
                values[name].append(str(value))
    if values:
        settings = ", ".join(" ".join((name, " or ".join(found))) for name, found in values.items())
        lines.append(f'<p class="facts">{_safe(settings)}</p>\n')
    if prompts > limit:
        lines.append(
            f'<p class="limit">{limit:,} of {prompts:,} prompts are shown, those of the newest round first; the '
            "figures are over all of them.</p>\n"
        )
    return "".join(lines)


def _figures(rounds: Sequence[Round], asks: Sequence[str]) -> str:
    """The table of trends, and below it, folded, every figure."""
    measures = _measures(rounds)
    if not measures:
        return ""
    trends, gaps = _trends(rounds, asks, measures), _gaps(rounds, asks, measures)
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in measures)
    labels = [round.label for round in reversed(rounds)]
    bodies = [f"<tbody>\n{_trend_rows(trends, labels, zero=False)}</tbody>\n"]
    if gaps:
        bodies.append(f'<tbody class="gaps">\n{_trend_rows(gaps, labels, zero=True)}</tbody>\n')
    heading = f"Means of {_safe(rounds[0].label)}" + (
        f", and how they went since {_safe(labels[0])}" if len(rounds) > 1 else ""
    )
    table = f'<table>\n<thead><tr><th scope="col">sentence</th>{head}</tr></thead>\n{"".join(bodies)}</table>\n'
    notes = [
        "Means are over all completions of a round"
        + (", differences over the prompts that have both." if gaps else ".")
    ]
    if len(rounds) > 1:
        notes.append(
            "The lines of a column share one scale"
            + ("; those of the differences share another, on which the dotted line is 0." if gaps else ".")
        )
    everything = _every_figure(rounds, asks, trends) if len(rounds) > 1 else ""
    return (
        f'<p class="heading">{heading}</p>\n{_scroller(table, "Means")}<p '
        f'class="note">{" ".join(notes)}</p>\n{everything}'
    )


def _scroller(table: str, name: str) -> str:
    return f'<div class="figures" role="group" aria-label="{name}" tabindex="0">\n{table}</div>\n'


def _trend_rows(trends: Sequence[Trend], labels: Sequence[str], *, zero: bool) -> str:
    """Rows with the newest mean and its line. The rows share one scale for each measure, which includes 0 where `zero`
    says so.
    """
    rows = []
    for trend in trends:
        cells = []
        for name, series in trend.means.items():
            points = [point for other in trends for point in other.means[name] if point is not None] + (
                [0.0] if zero else []
            )
            line = _line(series, labels, min(points), max(points), zero=zero) if len(series) > 1 and points else ""
            newest = "–" if series[-1] is None else _signed(series[-1]) if zero else _number(series[-1])
            cells.append(f'<td class="{trend.family}"><span class="value">{newest}</span>{line}</td>')
        marker = f'<span class="marker">{_safe(trend.marker)}</span>' if trend.marker else ""
        tag = _safe(trend.name) if zero else f'<span class="tag {trend.family}">{_safe(trend.name)}</span>'
        rows.append(f'<tr><th scope="row">{tag}{marker}</th>{"".join(cells)}</tr>\n')
    return "".join(rows)


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{_number(value)}"


def _line(series: Sequence[float | None], labels: Sequence[str], low: float, high: float, *, zero: bool) -> str:
    """A small picture of a series, 88 by 26: a line through neighbouring points, a dot at the newest and at any that
    stands alone.
    """

    def place(number: int, value: float) -> tuple[str, str]:
        share = (value - low) / (high - low) if high > low else 0.5
        return f"{3 + 82 * number / (len(series) - 1):.1f}", f"{23 - 20 * share:.1f}"

    runs: list[list[tuple[str, str]]] = [[]]
    for number, value in enumerate(series):
        if value is not None:
            runs[-1].append(place(number, value))
        elif runs[-1]:
            runs.append([])
    runs = [run for run in runs if run]
    said = ", ".join(
        f"{label}: {'none' if value is None else _number(value)}" for label, value in zip(labels, series, strict=True)
    )
    drawn = [f'<line class="zero" x1="3" x2="85" y1="{place(0, 0.0)[1]}" y2="{place(0, 0.0)[1]}"/>'] if zero else []
    drawn += [f'<polyline points="{" ".join(",".join(point) for point in run)}"/>' for run in runs if len(run) > 1]
    dots = [run[-1] for run in runs if len(run) == 1 or run is runs[-1]]
    drawn += [f'<circle cx="{x}" cy="{y}" r="2.2"/>' for x, y in dots]
    return f'<svg class="line" viewBox="0 0 88 26" role="img"><title>{_safe(said)}</title>{"".join(drawn)}</svg>'


def _every_figure(rounds: Sequence[Round], asks: Sequence[str], trends: Sequence[Trend]) -> str:
    head = "".join(f'<th scope="col">{_safe(name)}</th>' for name in ("completions", *trends[0].means))
    rows = []
    for number, round in enumerate(rounds):
        for ask, trend in zip(asks, trends, strict=True):
            written = sum(len(column.get(ask, ())) for column in round.prompts.values())
            values = [series[-1 - number] for series in trend.means.values()]
            cells = "".join(f'<td class="number">{"–" if value is None else _number(value)}</td>' for value in values)
            tag = f'<span class="tag {trend.family}">{_safe(trend.name)}</span>'
            rows.append(
                f'<tr><th scope="row">{_safe(round.label)} {tag}</th><td class="number">{written:,}</td>{cells}</tr>\n'
            )
    table = (
        '<table>\n<thead><tr><th scope="col">round and '
        f"sentence</th>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>\n"
    )
    return (
        '<details class="rounds">\n<summary>Every figure, round by '
        f"round</summary>\n{_scroller(table, 'Every figure')}</details>\n"
    )


def _choices(rounds: Sequence[Round], asks: Sequence[str]) -> str:
    """Boxes to tick for the columns and rounds that are shown; the style sheet does the rest."""
    groups = []
    if len(asks) > 1:
        groups.append(
            ("Sentences", [(f"ask-{place}", ask or "no sentence", _family(ask)) for place, ask in enumerate(asks)])
        )
    if len(rounds) > 1:
        groups.append(("Rounds", [(f"round-{place}", round.label, "other") for place, round in enumerate(rounds)]))
    out = []
    for name, boxes in groups:
        ticked = "".join(
            f'<label><input class="unseen" type="checkbox" id="{box}" checked><span class="tag '
            f'{family}">{_safe(label)}</span></label>\n'
            for box, label, family in boxes
        )
        wide = ' class="many"' if len(boxes) > MANY else ""
        out.append(
            f'<fieldset{wide}>\n<legend class="unseen">{name} that are shown</legend><span class="by" '
            f'aria-hidden="true">{name}</span>\n{ticked}</fieldset>\n'
        )
    return "".join(out)


def _choice_rules(asks: int, rounds: int) -> str:
    boxes = [*(f"ask-{place}" for place in range(asks)), *(f"round-{place}" for place in range(rounds))]
    return "".join(f"body:has(#{box}:not(:checked)) .{box} {{ display: none }}\n" for box in boxes)


def _prompt(number: int, key: tuple[str, str], rounds: Sequence[Round], asks: Sequence[str], *, named: bool) -> str:
    """One prompt: what was asked, and what was written in each round that has it."""
    columns = [(place, round.label, round.prompts[key]) for place, round in enumerate(rounds) if key in round.prompts]
    own = [ask for ask in asks if any(ask in column for _, _, column in columns)]
    every = [one for _, _, column in columns for ask in own for one in column.get(ask, ())]
    first = next((one for one in every if one.shown), every[0])
    reference = next((one.reference for one in every if one.reference is not None), None)
    about = " · ".join(_safe(word) for word in dict.fromkeys((first.prompt_id, first.task, first.source)) if word)
    title = "Prompt" if first.shown or not first.ask else f"Prompt, as it is continued under “{_safe(first.ask)}”"
    shown = _Shown({ask: {first.shown or first.prompt} for ask in own}, {ask: set() for ask in own}, named)
    sections = [
        _section(place, label, column, [(asks.index(ask), ask) for ask in own], shown)
        for place, label, column in columns
    ]
    out = [
        f'<article id="p{number}">\n<h2><a href="#p{number}">{number}</a> · {about}</h2>\n<div '
        f'class="prompt">\n<h3>{title}</h3>\n'
    ]
    out.append(_clamped(first.shown or first.prompt))
    if reference is not None:
        out.append(f"<h3>Reference</h3>\n{_clamped(reference)}")
    out.append(
        f'</div>\n<div class="sheet" role="group" aria-label="Completions of prompt {number}" tabindex="0"><div '
        f'class="all">\n{sections[0]}'
    )
    if sections[1:]:
        labels = [_safe(label) for _, label, _ in columns[1:]]
        names = ", ".join(labels) if len(labels) <= 4 else f"{labels[0]} to {labels[-1]}"
        out.append(
            f'<details class="older">\n<summary>{counted(len(labels), "older round")}: '
            f"{names}</summary>\n{''.join(sections[1:])}</details>\n"
        )
    return "".join([*out, "</div></div>\n</article>\n"])


@dataclass(frozen=True)
class _Shown:
    """What the reader of a prompt has seen in each column, from the newest round on: only what differs is shown
    again.
    """

    prompts: Mapping[str, set[str]]
    markers: Mapping[str, set[str]]
    named: bool
    """Whether the system's name stands at each completion: several systems wrote them."""


def _section(place: int, label: str, column: Column, asks: Sequence[tuple[int, str]], shown: _Shown) -> str:
    """What was written in one round for one prompt: a row for each sample, a cell for each ask; `asks` are (place among
    all asks, ask).
    """
    most = max(map(len, column.values()))
    rows = []
    for sample in range(most):
        cells = "".join(_cell(number, ask, column.get(ask, ()), sample, shown) for number, ask in asks)
        rows.append(f'<div class="row" data-sample="{sample}">\n{cells}</div>\n')
    others = (
        f'<details class="others">\n<summary>{counted(most - 1, "more sample")}</summary>\n{"".join(rows[1:])}</details>\n'
        if most > 1
        else ""
    )
    return f'<section class="round round-{place}">\n<h3>{_safe(label)}</h3>\n{rows[0]}{others}</section>\n'


def _cell(number: int, ask: str, samples: Sequence[Completion], sample: int, shown: _Shown) -> str:
    tag = f'<span class="tag">{_safe(ask) or "no sentence"}</span>'
    if sample >= len(samples):
        return f'<div class="cell none {_family(ask)} ask-{number}"><div class="top">{tag}nothing written</div></div>\n'
    one = samples[sample]
    top = f'<div class="top">{tag}{f"sample {sample + 1} of {len(samples)}" if len(samples) > 1 else ""}</div>'
    marker = ""
    if one.marker and one.marker not in shown.markers[ask]:
        shown.markers[ask].add(one.marker)
        marker = f'<div class="marker">{_safe(one.marker)}</div>'
    exact = ""
    if one.prompt not in shown.prompts[ask]:
        shown.prompts[ask].add(one.prompt)
        tokens = f" · {counted(one.prompt_tokens, 'token')}" if one.prompt_tokens else ""
        exact = (
            f'<details class="exact"><summary>exact prompt{tokens}</summary><div '
            f'class="text">{_safe(one.prompt)}</div></details>'
        )
    text = f'<div class="text">{_safe(one.text) or EMPTY}</div>'
    foot = f'<div class="foot">{_about(one, shown.named)}{exact}</div>'
    return f'<div class="cell {_family(ask)} ask-{number}">{top}{marker}{text}{foot}</div>\n'


def _about(one: Completion, named: bool) -> str:
    """The line below a completion, and its scores."""
    words = [_safe(one.system)] if named else []
    if one.completion_tokens:
        words.append(counted(one.completion_tokens, "token"))
    if one.stop:
        words.append(
            f"stop: {_safe(one.stop)}" if one.stop == "end" else f'<span class="stop">stop: {_safe(one.stop)}</span>'
        )
    scores = "".join(f"<span>{_safe(name)} <b>{_number(value)}</b></span>" for name, value in _scores(one).items())
    return " · ".join(words) + (f'<div class="scores">{scores}</div>' if scores else "")


def _clamped(text: str) -> str:
    """A text of the prompt; a long one from its start, with a box that shows the whole."""
    body = f'<div class="text">{_safe(text) or EMPTY}</div>'
    if len(text) <= LONG and text.count("\n") < LONG_LINES:
        return f"{body}\n"
    more = '<span class="more">Show all of it</span><span class="less">Show less</span>'
    return f'<div class="long">{body}<label><input class="unseen" type="checkbox"><span>{more}</span></label></div>\n'
