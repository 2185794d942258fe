"""Completions files -> the folder of a blind study:

DIR/sheets/rater-1.csv ...   one shuffled sheet per rater, and instructions.txt    for raters
DIR/rate.html                the same sheets as one offline page                   for raters
DIR/forms/                   xlsx, Label Studio, potato, on request                for raters
DIR/items.jsonl study.json   texts, rows, definitions                              blind too
DIR/key.json                 which system is A; seed; exclusion rules              stays here
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coh_lightning.errors import InputError, counted, listed
from coh_lightning.feedback.compressed import read_text
from coh_lightning.human_eval.assignment import Design, make_study
from coh_lightning.human_eval.export_checks import (
    check_blind,
    check_form,
    checked_attributes,
    checked_forms,
    checked_raters,
    checked_reasons,
    definitions_of,
    exclusion_rules,
)
from coh_lightning.human_eval.form import (
    QUESTION_SETS,
    RatingForm,
    about_the_prompt,
    checked_language,
    page_words,
    question_set,
    read_practice,
    set_of_tasks,
)
from coh_lightning.human_eval.items import match, read_gold
from coh_lightning.human_eval.known_prompts import ANSWER
from coh_lightning.human_eval.ranking_study import make_ranking_study
from coh_lightning.human_eval.rankings import check_ranking
from coh_lightning.human_eval.sheets import CELL_LIMIT, utf16_units, write_rating_page, write_sheets
from coh_lightning.human_eval.study import (
    ITEMS,
    JUDGMENTS,
    KEY,
    STUDY,
    Study,
    StudyItem,
    read_key,
    write_study,
)
from coh_lightning.human_eval.systems import REFERENCE, read_systems, references
from coh_lightning.io import atomic_write


def export_study(
    completions: Sequence[Path],
    output: Path,
    *,
    raters: int = 3,
    overlap: int = 50,
    attributes: Sequence[str] | None = None,
    questions: str | None = None,
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
    title: str | None = None,
    instructions: Path | None = None,
    contact: str = "",
    language: str = "en",
    rater_names: Sequence[str] = (),
    strength: bool = False,
    reasons: Sequence[str] = (),
    min_comment: int = 0,
    practice: Path | None = None,
    ranking: bool = False,
    render: str = "raw",
    exclusion: Mapping[str, float | None] | None = None,
    forms: Sequence[str] = (),
    overwrite: bool = False,
) -> Study:
    """Make a study and write its folder, whole or not at all.

    Args:
        completions: completions files (feedback/completions.py describes a line) of at least two systems, counting
            `control` and `against_references`.
        raters, overlap, votes, swaps, identical: see `Design`.
        attributes: what is asked about each pair; default: all questions of the set.
        questions: one of our sets, summary, dialogue, instruction or code, or a YAML file; default: by the data's task.
        names: names of the systems, one per file, instead of those in the files.
        ask: which ask is compared if files have several.
        control: two asks of one file, to be compared with each other.
        against: the baseline, the only system that the others are compared with; default: all pairs.
        against_references: add the data's references as a system, and as the baseline unless `against` names another.
        max_prompts: the most prompts to rate.
        dialogues: the lines are turns of dialogues, to be joined.
        gold: file of items with an obvious answer.
        define: attribute -> what raters are asked; for your own attributes, or instead of our sentences.
        title: what raters see at the top; default: the language's own.
        instructions: a file of the author's own instructions, shown before the questions.
        contact: whom raters can ask.
        language: of the page's own words and our questions: en, de, es, zh.
        rater_names: names of the raters, instead of `raters` numbers.
        strength: ask whether a preference is slight or clear.
        reasons: categories of what is wrong with an answer, of which a rater gives at least one.
        min_comment: the least characters of a comment.
        render: how the page shows answers: raw, or as markdown.
        ranking: rank the answers of all systems, three to five, on one screen, instead of comparing two at a time.
        practice: a file of items before the study, whose answers are explained.
        exclusion: changes to `EXCLUSION`; None switches a rule off.
        forms: further forms of the sheets: xlsx, label-studio, potato.
        overwrite: replace another study there. One with judgments is never replaced.

    Raises:
        InputError: anything wrong with files or settings, before anything is written.
    """
    output = Path(output)
    rater_names = checked_raters(rater_names)
    raters = len(rater_names) or raters
    design = Design(raters, overlap, votes, swaps, identical)
    language = checked_language(language)
    own = "" if instructions is None else read_text(Path(instructions))
    if instructions is not None and not own.strip():
        raise InputError(f"{instructions}: the file of instructions is empty; write them, or leave it out.")
    if attributes is not None:
        attributes = checked_attributes(attributes)
    rules = exclusion_rules(exclusion or {})
    forms = checked_forms(forms)
    if against_references and dialogues:
        raise InputError("References are single answers and can't be compared with dialogues; give a second file.")
    paths = [Path(path) for path in completions]
    systems = read_systems(paths, seed=seed, names=names, ask=ask, control=control, dialogues=dialogues)
    if against_references:
        systems.append(references(systems))
        against = against or REFERENCE
    tasks = {output.task for system in systems for output in system.outputs.values()}
    asked_of = questions or set_of_tasks(tasks, dialogues=dialogues)
    asked = question_set(asked_of, language)
    attributes = checked_attributes(attributes or [*asked])
    definitions = definitions_of(attributes, define or {}, asked)
    if ranking:
        check_ranking(systems)
    form = RatingForm(
        ranking=len(systems) if ranking else 0,
        language=language,
        questions=asked_of if asked_of in QUESTION_SETS else "",
        instructions=own,
        contact=contact,
        strength=strength,
        reasons=checked_reasons(reasons),
        min_comment=min_comment,
        render=render,
        practice=read_practice(Path(practice), attributes) if practice is not None else (),
    )
    check_form(form, forms)
    title = page_words(language)["title"] if title is None else title
    own_words = {**(define or {}), **({} if asked_of in QUESTION_SETS else definitions)}
    check_blind(title, own_words, systems, form)
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
    if len(tasks) == 1 and not tasks <= {"", ANSWER}:
        key["task"] = next(iter(tasks))  # which feedback made of the study has, too
    if ranking:
        study = make_ranking_study(
            matched,
            systems,
            design,
            seed=seed,
            definitions=definitions,
            title=title,
            key=key,
            form=form,
            rater_names=rater_names,
        )
        _check_output(output, study, overwrite=overwrite)
        _write_folder(study, output, forms)
        return study
    study = make_study(
        matched,
        design,
        seed=seed,
        attributes=attributes,
        definitions=definitions,
        title=title,
        gold=read_gold(Path(gold)) if gold is not None else (),
        key=key,
        form=form,
        rater_names=rater_names,
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
            lines.append(f"{counted(len(ids), 'prompt')} of '{system}' had no counterpart; left out: {some}.")
    votes = [item for item in study.items if study.key["items"][item.item]["kind"] == "pair"]
    lines += misfits(study, votes)
    same = sum(item.texts[0] == item.texts[1] for item in votes)
    if same:
        lines.append(f"In {same} of {counted(len(votes), 'item')} both systems wrote the same text, which is a tie.")
    long = sum(any(utf16_units(text) > CELL_LIMIT for text in (item.prompt, *item.texts)) for item in study.items)
    if long:
        items = f"{long} of {counted(len(study.items), 'item')} {'has' if long == 1 else 'have'}"
        lines.append(
            f"{items} a text of more than {CELL_LIMIT:,} characters, which Excel cuts off; have them "
            "rated in rate.html."
        )
    return lines


def misfits(study: Study, items: Sequence[StudyItem]) -> Iterator[str]:
    """Questions that don't fit the data: what the prompt supports can't be asked of a prompt that says less than its
    answers.
    """
    names = about_the_prompt(study.definitions, study.form.language)
    short = [item for item in items if len(item.prompt) < max(map(len, item.texts))]
    if names and 2 * len(short) > len(items):
        shortest = min((len(item.prompt), item.prompt) for item in short)[1]
        yield (
            f"{listed([*names])} {'ask' if len(names) > 1 else 'asks'} what the prompt says, but in {len(short)} of "
            f"{counted(len(items), 'item')} the prompt is shorter than an answer (such as {shortest!r:.60}); questions "
            "that need no source text: --questions instruction."
        )


def _check_output(output: Path, study: Study, *, overwrite: bool) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InputError(f"{output}: this is not a folder; choose another name for the study.")
    if not output.exists() or not any(output.iterdir()):
        return
    if not any((output / name).exists() for name in (KEY, STUDY, ITEMS, JUDGMENTS)):
        raise InputError(f"{output}: the folder has other files and no study; choose a new one.")
    if (output / JUDGMENTS).exists() and (output / JUDGMENTS).stat().st_size:
        raise InputError(f"{output}: the study there has judgments, which would lose their key; choose a new folder.")
    if not overwrite and not (output / KEY).exists():
        raise InputError(f"{output}: the folder has a study without {KEY}; choose a new folder, or --overwrite it.")
    if not overwrite and read_key(output)["study"] != study.id:
        raise InputError(
            f"{output}: another study is there, whose sheets couldn't be imported without its {KEY}; choose a new "
            "folder, or --overwrite it."
        )


def _write_folder(study: Study, output: Path, forms: Sequence[str]) -> None:
    """Write everything beside the folder and rename at the end, so that there is never half a study."""
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
