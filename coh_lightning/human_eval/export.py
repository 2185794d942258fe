"""`python -m coh_lightning human-eval export A.jsonl B.jsonl --output DIR`: completions files -> the folder of a blind
study.

DIR/sheets/rater-1.csv ...   one shuffled sheet a rater, and instructions.txt      goes to raters
DIR/rate.html                the same sheets as one offline page                   goes to raters
DIR/forms/                   xlsx, Label Studio, potato, where asked for           goes to raters
DIR/items.jsonl study.json   canonical texts, rows, definitions                    blind too
DIR/key.json                 who is A; the seed; the rules of exclusion            stays here
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from coh_lightning.errors import InputError, counted, did_you_mean
from coh_lightning.files import written_aside
from coh_lightning.human_eval.items import REFERENCE, Gold, System, match, read_gold, read_systems, references
from coh_lightning.human_eval.sheets import AFTER, BEFORE, CELL_LIMIT, write_sheets
from coh_lightning.human_eval.study import (
    DEFINITIONS,
    ITEMS,
    KEY,
    STUDY,
    TITLE,
    Design,
    Study,
    make_study,
    read_key,
    write_study,
)
from coh_lightning.words import mentions

FORMS = ("xlsx", "label-studio", "potato")
ATTRIBUTES = ("accuracy", "coherence", "coverage", "overall")
EXCLUSION: Mapping[str, float] = {
    "min_consistency": 0.4,
    "min_identical": 0.5,
    "min_gold": 0.8,
    "min_median_seconds": 3.0,
    "min_check_answers": 12,
}
"""Which raters the report leaves out in its second set of numbers, fixed here before anybody sees who is who: those
with a smaller share of swapped duplicates answered alike, of identical pairs called a tie, of gold items answered
rightly (each where at least `min_check_answers` answers tell), or a smaller median of seconds a row. Who answers by
chance is consistent in a third of the cases, an honest but unsure rater often in little more than a half: few answers
tell nothing."""
JUDGEMENTS = "judgements.jsonl"


def export_study(
    completions: Sequence[Path],
    output: Path,
    *,
    raters: int = 3,
    overlap: int = 50,
    attributes: Sequence[str] = ATTRIBUTES,
    seed: int = 0,
    votes: int = 1,
    names: Sequence[str] | None = None,
    ask: str | None = None,
    control: tuple[str, str] | None = None,
    against: str | None = None,
    against_references: bool = False,
    max_prompts: int | None = None,
    dialogues: bool = False,
    gold: Path | None = None,
    swaps: float = 0.05,
    identical: float = 0.02,
    define: Mapping[str, str] | None = None,
    title: str = TITLE,
    exclusion: Mapping[str, float | None] | None = None,
    forms: Sequence[str] = (),
    overwrite: bool = False,
) -> Study:
    """Make a study and write its folder, whole or not at all.

    Args:
        completions: completions files (items.py says what a line needs); two systems at least, counting `control` and
            `against_references`.
        output: the folder to write.
        raters: how many sheets.
        overlap: items that every rater gets; all, where there are fewer.
        attributes: what is asked of each pair.
        seed: of everything that is drawn.
        votes: raters of each item that not all get.
        names: names of the systems, one a file, in place of those that the files give.
        ask: which ask is compared, where files hold several.
        control: two asks of one file, to be compared with each other.
        against: the baseline, the only system that the others are compared with; by default all pairs are.
        against_references: the data's references are a further system, and the baseline unless `against` names another.
        max_prompts: the most prompts to rate.
        dialogues: the files hold turns of dialogues, to be joined.
        gold: file of items with an obvious answer.
        swaps, identical: shares of checks (see `Design`).
        define: attribute -> what raters are asked; for attributes of your own, or in place of our words.
        title: what raters see on top.
        exclusion: changes to `EXCLUSION`; None switches a rule off.
        forms: further forms of the sheets: xlsx, label-studio, potato.
        overwrite: replace another study there. One that has judgements is never replaced.

    Raises:
        InputError: whatever is wrong with files or settings, before anything is written.
    """
    output = Path(output)
    design = Design(raters, overlap, votes, swaps, identical)
    attributes = _checked_attributes(attributes)
    definitions = _definitions(attributes, define or {})
    rules = _rules(exclusion or {})
    forms = _checked(forms, FORMS, "form")
    if against_references and dialogues:
        raise InputError(
            "References are single answers, which can't stand against whole dialogues; give a second completions file."
        )
    systems = read_systems(
        [Path(path) for path in completions], seed=seed, names=names, ask=ask, control=control, dialogues=dialogues
    )
    if against_references:
        systems.append(references(systems))
        against = against or REFERENCE
    _check_words(title, define or {}, systems)
    matched = match(systems, seed=seed, against=against, max_prompts=max_prompts)
    golden: Sequence[Gold] = read_gold(Path(gold)) if gold is not None else ()
    key = {
        "systems": [system.name for system in systems],
        "against": against,
        "completions": {
            system.name: {"file": system.file, "ask": system.ask, "samples": system.samples} for system in systems
        },
        "sampling": {system.name: system.sampling for system in systems},
        "design": {"raters": raters, "overlap": overlap, "votes": votes, "swaps": swaps, "identical": identical},
        "exclusion": rules,
        "warnings": list(matched.warnings),
    }
    study = make_study(
        matched, design, seed=seed, attributes=attributes, definitions=definitions, title=title, gold=golden, key=key
    )
    _check_output(output, study, overwrite=overwrite)
    _write_folder(study, output, forms)
    return study


def notes(study: Study) -> list[str]:
    """What the maker of a study should know before the sheets go out, one sentence each."""
    lines = list(study.key["warnings"])
    for system, ids in study.key["unmatched"].items():
        if ids:
            some = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            lines.append(
                f"{counted(len(ids), 'prompt')} of '{system}' had no counterpart and "
                f"{'are' if len(ids) > 1 else 'is'} left out ({some})."
            )
    votes = [item for item in study.items if study.key["items"][item.item]["kind"] == "pair"]
    same = sum(item.texts[0] == item.texts[1] for item in votes)
    if same:
        lines.append(
            f"In {same} of {len(votes)} items both systems wrote the same text; raters should call them a tie."
        )
    long = sum(any(len(text) > CELL_LIMIT for text in (item.prompt, *item.texts)) for item in study.items)
    if long:
        lines.append(
            f"{long} of {len(study.items)} items hold a text of more than {CELL_LIMIT:,} characters, which Excel "
            "cuts; have them rated in rate.html."
        )
    return lines


# ----------------------------------------------------------------------------------------------------------------
# checks


def _checked(given: Sequence[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for name in given:
        if name not in known:
            raise InputError(
                f"There is no {what} '{name}'; it must be one of {', '.join(known)}{did_you_mean(name, known)}"
            )
    return tuple(dict.fromkeys(given))


def _checked_attributes(attributes: Sequence[str]) -> tuple[str, ...]:
    seen = {name.casefold() for name in (*BEFORE, *AFTER)}
    for name in attributes:
        if not regex.fullmatch(r"[\p{L}\p{N}_](?:[\p{L}\p{M}\p{N}_ \u200c\u200d-]*[\p{L}\p{M}\p{N}_])?", name):
            raise InputError(f"The attribute {name!r} can't head a column; use letters, digits, spaces and hyphens.")
        if name.casefold() in seen:
            raise InputError(
                f"The attribute '{name}' is named twice, or has the name of another column of the sheets; name each "
                "attribute once."
            )
        seen.add(name.casefold())
    if not attributes:
        raise InputError("No attribute is given, so nothing would be asked; name at least one, as overall.")
    return tuple(attributes)


def _definitions(attributes: Sequence[str], define: Mapping[str, str]) -> dict[str, str]:
    for name, words in define.items():
        if name not in attributes:
            raise InputError(
                f"'{name}' is defined but not among the attributes "
                f"{', '.join(attributes)}{did_you_mean(name, attributes)}"
            )
        if not words.strip():
            raise InputError(f"The definition of '{name}' is empty; say in a sentence what raters are to judge.")
    definitions = DEFINITIONS | dict(define)
    for name in attributes:
        if name not in definitions:
            raise InputError(
                f"Raters need a sentence for the attribute '{name}'; give --define '{name}=Which answer ...?' (there "
                f"are definitions of {', '.join(DEFINITIONS)})."
            )
    return {name: definitions[name] for name in attributes}


def _rules(exclusion: Mapping[str, float | None]) -> dict[str, float]:
    rules: dict[str, float | None] = {**EXCLUSION}
    for name, bound in exclusion.items():
        if name not in EXCLUSION:
            raise InputError(
                f"There is no exclusion rule '{name}'; the rules are "
                f"{', '.join(EXCLUSION)}{did_you_mean(name, EXCLUSION)}"
            )
        top = 1 if name in ("min_consistency", "min_identical", "min_gold") else float("inf")
        if bound is not None and not 0 <= bound <= top:
            raise InputError(
                f"The exclusion rule {name} is {bound:g}; it must be at least 0"
                + (" and at most 1." if top == 1 else ".")
            )
        rules[name] = bound
    return {name: bound for name, bound in rules.items() if bound is not None}


def _check_words(title: str, define: Mapping[str, str], systems: Sequence[System]) -> None:
    """Refuse a system's name in what every rater reads."""
    for where, words in (
        ("title", title),
        *((f"definition of '{name}'", sentence) for name, sentence in define.items()),
    ):
        try:
            words.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"The {where} holds a lone surrogate, which no file can hold; write it anew.") from error
        for system in systems:
            if mentions(words, system.name):
                raise InputError(
                    f"The {where} names the system '{system.name}', which raters must not know; use other words."
                )


def _check_output(output: Path, study: Study, *, overwrite: bool) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: this is no folder; choose another name for the study.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not any((output / name).exists() for name in (KEY, STUDY, ITEMS, JUDGEMENTS)):
        raise InputError(f"{output}: the folder holds other things and no study; choose a new one.")
    if (output / JUDGEMENTS).exists() and (output / JUDGEMENTS).stat().st_size:
        raise InputError(
            f"{output}: the study there has judgements, which a new export would cut from their key; choose a new "
            "folder."
        )
    if not overwrite and not (output / KEY).exists():
        raise InputError(f"{output}: the folder holds a study without {KEY}; choose a new folder, or --overwrite it.")
    if not overwrite and read_key(output)["study"] != study.id:
        raise InputError(
            f"{output}: another study is there, and sheets of it that are out could not be imported without its "
            f"{KEY}; choose a new folder, or --overwrite it."
        )


def _write_folder(study: Study, output: Path, forms: Sequence[str]) -> None:
    """Write everything beside the folder and rename at the end, so that there is never half a study."""
    from coh_lightning.human_eval.page import write_page

    with written_aside(output.absolute()) as aside:
        aside.mkdir()
        write_study(study, aside)
        write_sheets(study, aside / "sheets")
        write_page(study, aside / "rate.html")
        if forms:
            from coh_lightning.human_eval.forms import write_label_studio, write_potato, write_xlsx

            (aside / "forms").mkdir()
            for form in forms:
                {"xlsx": write_xlsx, "label-studio": write_label_studio, "potato": write_potato}[form](
                    study, aside / "forms"
                )


# ---------------------------------------------------------------------------------------------------------------- the
# command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `human-eval export`."""
    add = parser.add_argument
    add(
        "completions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="completions of a system: JSON lines with id, prompt and completion, or our completions.jsonl",
    )
    add("--output", "-o", type=Path, required=True, metavar="DIR", help="folder to write the study to")
    systems = parser.add_argument_group("what is compared")
    add = systems.add_argument
    add(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names of the systems, one a file (default: their key 'system', or the file's name)",
    )
    add(
        "--ask",
        metavar="NAME",
        help="which ask to compare, where files hold several (default: good, or else the first)",
    )
    add(
        "--against",
        metavar="NAME",
        help="the baseline that the others are compared with (default: all pairs of systems)",
    )
    add("--against-references", action="store_true", help="compare with the data's references, as the baseline")
    add(
        "--control",
        nargs=2,
        metavar=("ASK", "ASK"),
        help="compare two asks of the one file given, as good and bad: a control, no comparison of systems",
    )
    add("--prompts", type=int, metavar="N", help="rate at most N prompts, drawn by the seed")
    add("--dialogues", action="store_true", help="the lines are turns of dialogues, ids DIALOGUE#TURN: join them")
    design = parser.add_argument_group("who rates what")
    add = design.add_argument
    add("--raters", type=int, default=3, metavar="N", help="sheets to write (default: %(default)s)")
    add(
        "--overlap",
        type=int,
        default=50,
        metavar="M",
        help="items that every rater gets (default: %(default)s, or all)",
    )
    add("--votes", type=int, default=1, metavar="K", help="raters of each other item (default: %(default)s)")
    add(
        "--attributes",
        nargs="+",
        default=list(ATTRIBUTES),
        metavar="NAME",
        help="what is asked (default: accuracy coherence coverage overall)",
    )
    add(
        "--define",
        action="append",
        default=[],
        metavar="NAME=SENTENCE",
        help="what raters read about an attribute; again for each",
    )
    add("--title", default=TITLE, help="what raters see on top (default: %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of order, sides and checks (default: %(default)s)")
    add("--forms", nargs="+", default=[], metavar="FORM", help=f"further forms of the sheets: {', '.join(FORMS)}")
    checks = parser.add_argument_group("checks and exclusion, fixed here before anybody knows who is who")
    add = checks.add_argument
    add(
        "--gold",
        type=Path,
        metavar="FILE",
        help="items with an obvious answer: JSON lines with id, prompt, good and bad",
    )
    add(
        "--swaps",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="duplicates with sides swapped, at least 2 a rater (default: %(default)s)",
    )
    add(
        "--identical",
        type=float,
        default=0.02,
        metavar="SHARE",
        help="pairs of one text with itself, at least 1 a rater (default: %(default)s)",
    )
    for name, (metavar, words) in {
        "min_consistency": ("SHARE", "swapped duplicates answered alike"),
        "min_identical": ("SHARE", "identical pairs called a tie"),
        "min_gold": ("SHARE", "gold items answered rightly"),
        "min_median_seconds": ("S", "median seconds a row"),
        "min_check_answers": ("N", "answers to checks before their share counts"),
    }.items():
        add(
            f"--{name.replace('_', '-')}",
            type=float,
            default=EXCLUSION[name],
            metavar=metavar,
            help=f"at least this: {words} (default: %(default)s)",
        )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace another study in DIR, unless it has judgements"
    )


def run(args: argparse.Namespace) -> int:
    """Write the study and print what to do with it; gives the exit status. Raises InputError as `export_study` does."""
    study = export_study(
        args.completions,
        args.output,
        raters=args.raters,
        overlap=args.overlap,
        attributes=args.attributes,
        seed=args.seed,
        votes=args.votes,
        names=args.names,
        ask=args.ask,
        control=tuple(args.control) if args.control else None,
        against=args.against,
        against_references=args.against_references,
        max_prompts=args.prompts,
        dialogues=args.dialogues,
        gold=args.gold,
        swaps=args.swaps,
        identical=args.identical,
        define=_defined(args.define),
        title=args.title,
        exclusion={name: getattr(args, name) for name in EXCLUSION},
        forms=args.forms,
        overwrite=args.overwrite,
    )
    print(summary(study, args.output))
    return 0


def _defined(given: Sequence[str]) -> dict[str, str]:
    define = {}
    for one in given:
        name, equals, words = one.partition("=")
        if not equals:
            raise InputError(f"--define {one!r} has no '='; give NAME=SENTENCE.")
        define[name.strip()] = words.strip()
    return define


def summary(study: Study, output: Path) -> str:
    """What was exported, in lines for the terminal."""
    about: Mapping[str, Any] = study.key["items"]
    votes = [item for item in about.values() if item["kind"] == "pair"]
    pairs = sorted({" and ".join(sorted(item["systems"])) for item in votes})
    checks = [row["check"] for row in study.key["rows"].values()]
    lines = [
        f"study {study.id}: {len(votes)} items of {len({item['prompt_id'] for item in votes})} prompts, comparing "
        f"{'; '.join(pairs)}",
        *(f"  {output / 'sheets' / f'{rater}.csv'}  {len(study.rater_rows(rater))} rows" for rater in study.raters),
        f"  {output / 'rate.html'}  the same, to rate in a browser",
        f"  checks among the {len(checks)} rows: {checks.count('swap')} swapped duplicates, "
        f"{checks.count('identical')} identical pairs, {checks.count('gold')} gold",
        *(f"note: {line}" for line in notes(study)),
        f"{output / KEY} says who is who: keep it, and send raters only the sheets, the page or the forms. Then: "
        f"human-eval import {output} FILES",
    ]
    return "\n".join(lines)
