"""Completions files -> the folder of a blind study:

DIR/sheets/rater-1.csv ...   one shuffled sheet per rater, and instructions.txt    for raters
DIR/rate.html                the same sheets as one offline page                   for raters
DIR/forms/                   xlsx, Label Studio, potato, on request                for raters
DIR/items.jsonl study.json   texts, rows, definitions                              blind too
DIR/key.json                 which system is A; seed; exclusion rules              stays here
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coh_lightning.errors import InputError, counted
from coh_lightning.human_eval.assignment import Design, make_study
from coh_lightning.human_eval.export_settings import (
    ATTRIBUTES,
    check_blind,
    checked_attributes,
    checked_forms,
    definitions_of,
    exclusion_rules,
)
from coh_lightning.human_eval.gold import read_gold
from coh_lightning.human_eval.items import REFERENCE, match, read_systems, references
from coh_lightning.human_eval.sheets import CELL_LIMIT, write_sheets
from coh_lightning.human_eval.study import ITEMS, JUDGEMENTS, KEY, STUDY, TITLE, Study, read_key, write_study
from coh_lightning.io import atomic_write


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
        completions: completions files (outputs.py describes a line); at least two systems, counting `control` and
            `against_references`.
        output: the folder to write.
        raters: how many sheets.
        overlap: items that every rater gets; all if there are fewer.
        attributes: what is asked about each pair.
        seed: of everything random.
        votes: raters of each item outside the overlap.
        names: names of the systems, one per file, instead of those in the files.
        ask: which ask is compared if files hold several.
        control: two asks of one file, to be compared with each other.
        against: the baseline, the only system that the others are compared with; default: all pairs.
        against_references: add the data's references as a system, and as the baseline unless `against` names another.
        max_prompts: the most prompts to rate.
        dialogues: the files hold turns of dialogues, to be joined.
        gold: file of items with an obvious answer.
        swaps, identical: shares of checks (see `Design`).
        define: attribute -> what raters are asked; for your own attributes, or instead of our sentences.
        title: what raters see at the top.
        exclusion: changes to `EXCLUSION`; None switches a rule off.
        forms: further forms of the sheets: xlsx, label-studio, potato.
        overwrite: replace another study there. One with judgments is never replaced.

    Raises:
        InputError: anything wrong with files or settings, before anything is written.
    """
    output = Path(output)
    design = Design(raters, overlap, votes, swaps, identical)
    attributes = checked_attributes(attributes)
    definitions = definitions_of(attributes, define or {})
    rules = exclusion_rules(exclusion or {})
    forms = checked_forms(forms)
    if against_references and dialogues:
        raise InputError(
            "References are single answers, which can't be compared with whole dialogues; give a second completions "
            "file."
        )
    paths = [Path(path) for path in completions]
    systems = read_systems(paths, seed=seed, names=names, ask=ask, control=control, dialogues=dialogues)
    if against_references:
        systems.append(references(systems))
        against = against or REFERENCE
    check_blind(title, define or {}, systems)
    matched = match(systems, seed=seed, against=against, max_prompts=max_prompts)
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
        matched,
        design,
        seed=seed,
        attributes=attributes,
        definitions=definitions,
        title=title,
        gold=read_gold(Path(gold)) if gold is not None else (),
        key=key,
    )
    _check_output(output, study, overwrite=overwrite)
    _write_folder(study, output, forms)
    return study


def notes(study: Study) -> list[str]:
    """What the author of a study should know before sending out the sheets, one sentence each."""
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
            f"{long} of {len(study.items)} items hold a text of more than {CELL_LIMIT:,} characters, which Excel cuts "
            "off; have them rated in rate.html."
        )
    return lines


def _check_output(output: Path, study: Study, *, overwrite: bool) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: this is not a folder; choose another name for the study.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not any((output / name).exists() for name in (KEY, STUDY, ITEMS, JUDGEMENTS)):
        raise InputError(f"{output}: the folder holds other files and no study; choose a new one.")
    if (output / JUDGEMENTS).exists() and (output / JUDGEMENTS).stat().st_size:
        raise InputError(
            f"{output}: the study there has judgments, which would lose their key in a new export; choose a new folder."
        )
    if not overwrite and not (output / KEY).exists():
        raise InputError(f"{output}: the folder holds a study without {KEY}; choose a new folder, or --overwrite it.")
    if not overwrite and read_key(output)["study"] != study.id:
        raise InputError(
            f"{output}: another study is there, and sheets already sent out could not be imported without its {KEY}; "
            "choose a new folder, or --overwrite it."
        )


def _write_folder(study: Study, output: Path, forms: Sequence[str]) -> None:
    """Write everything beside the folder and rename at the end, so that there is never half a study."""
    from coh_lightning.human_eval.rating_page import write_rating_page

    with atomic_write(output.absolute()) as aside:
        aside.mkdir()
        write_study(study, aside)
        write_sheets(study, aside / "sheets")
        write_rating_page(study, aside / "rate.html")
        if forms:
            from coh_lightning.human_eval.label_studio import write_label_studio
            from coh_lightning.human_eval.potato import write_potato
            from coh_lightning.human_eval.workbook import write_xlsx

            (aside / "forms").mkdir()
            writers = {"xlsx": write_xlsx, "label-studio": write_label_studio, "potato": write_potato}
            for form in forms:
                writers[form](study, aside / "forms")
