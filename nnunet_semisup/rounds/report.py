"""The page about rounds: curves, kept and dropped scans with pictures, the reason for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.document import Code, Group, Heading, Part, Picture, Table, Text, to_html
from nnunet_semisup.inference.overlays import FOLDER, draw_predictions
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED
from nnunet_semisup.rounds.choice import Choice, Decision
from nnunet_semisup.rounds.commands import read_record
from nnunet_semisup.rounds.design import Design, Layout, RoundFolder
from nnunet_semisup.rounds.results import Round, read_rounds, rounds_table, step_names

PAGE = "report.html"
SHOWN = 6
"""Scans of a kind that are drawn: dropped ones, the most doubtful and the surest of those kept."""


def write_report(layout: Layout, design: Design) -> Path:
    """Write ``report.html``, which holds its pictures, and return its path."""
    rounds = read_rounds(layout, design)
    curves = layout.folder / "curves.png"
    with atomic_path(curves) as temporary:
        draw_curves(rounds).savefig(temporary, format="png")
    parts: list[Part] = [
        Heading(f"Rounds on {design.dataset}", 1),
        Text(verdict(rounds), "verdict"),
        _picture(
            curves,
            "Left: Dice of the validation cases, mean and worst; round 0 is the model that was "
            "there before. Middle: part of the labels that changed. Right: scans kept and dropped.",
        ),
        Table(*rounds_table(rounds)),
        Text(_honesty(design), "note"),
        Heading("What they are made of"),
        Text(_design(design)),
    ]
    for one in rounds[1:]:
        if one.choice is not None:
            parts += _round(layout.round(design, one.number), design, one.number, one.choice)
    parts += [Heading("Commands"), _commands(layout, design)]
    path = layout.folder / PAGE
    with atomic_path(path) as temporary:
        temporary.write_text(to_html(f"Rounds on {design.dataset}", parts), encoding="utf-8")
    return path


def verdict(rounds: Sequence[Round]) -> str:
    """Return in one sentence whether the last model is better than the first, and where."""
    done = [one for one in rounds if one.validation is not None and one.validation.mean is not None]
    if not done or done[0].number != 0:
        return "The first model has no finished validation, so that nothing can be compared."
    if len(done) == 1:
        return "No round has finished yet."
    first, last = done[0].validation, done[-1].validation
    assert first is not None
    assert last is not None
    common = sorted(first.dice.keys() & last.dice.keys())
    better = sum(last.dice[case] > first.dice[case] for case in common)
    return (
        f"Dice {first.mean:.4f} before, {last.mean:.4f} after round {done[-1].number}; better in "
        f"{better} of {len(common)} validation cases; the worst case {first.worst:.3f} before, "
        f"{last.worst:.3f} after."
    )


def _honesty(design: Design) -> str:
    text = (
        "Validation cases have labels and are in no training of their fold. Whether the last model "
        "is better on other scans, only other scans tell."
    )
    if len(design.folds) > 1:
        text += (
            " The folds labeled together, and each validation case was trained on by all folds but "
            "one: a little of its label may have come back by the labels of other scans. Compare "
            "on scans that no fold has seen."
        )
    return text


def _design(design: Design) -> str:
    steps = "as the trainer has it" if design.steps is None else f"{design.steps} steps"
    size = f"more than {design.size_limit:g} times outside of the labeled sizes, or scattered more"
    filters = [
        f"the worst {design.drop:.0%} dropped" if design.drop else "none dropped by disagreement",
        f"dropped where {size}" if design.size_limit else "sizes not looked at",
        f"voxels below {design.confidence:g} ignored" if design.confidence else "no voxel ignored",
        f"{design.labeled_share:.0%} of the patches from labeled scans"
        if design.labeled_share
        else "all scans drawn alike",
    ]
    tuned = f", then {design.fine_tune} steps on the labeled cases" if design.fine_tune else ""
    return (
        f"{design.trainer}, {steps}{tuned}, {design.configuration}, {design.plans}, folds "
        f"{' '.join(map(str, design.folds))}. Filter: {'; '.join(filters)}. First labels by "
        f"{design.model}."
    )


def _round(round_: RoundFolder, design: Design, number: int, choice: Choice) -> list[Part]:
    """Return the part about one round: its scans in a table, some of them drawn."""
    dropped = [one for one in choice.decisions if not one.kept]
    kept = [one for one in choice.decisions if one.kept]
    groups = {
        "dropped": dropped[:SHOWN],
        "kept, the most doubtful": kept[:SHOWN],
        "kept, the surest": kept[SHOWN:][-SHOWN:],
    }
    shown = [one for group in groups.values() for one in group]
    _draw(round_, design, [one.case for one in shown])
    parts: list[Part] = [
        Heading(f"Round {number}"),
        Text(f"{len(kept)} scans kept, {len(dropped)} dropped, ranked by {choice.measure}."),
    ]
    for title, group in groups.items():
        if group:
            parts.append(Heading(title, 3))
        parts += [
            _picture(round_.labels / FOLDER / f"{one.case}.png", f"{one.case}: {one.reason}")
            for one in group
        ]
    rows: list[list[object]] = [_row(one) for one in choice.decisions]
    table = Table(["scan", "", "score", "reason"], rows)
    return [*parts, Group([table], title=f"All {len(rows)} scans")]


def _row(one: Decision) -> list[object]:
    return [one.case, "kept" if one.kept else "dropped", one.score, one.reason]


def _draw(round_: RoundFolder, design: Design, cases: Sequence[str]) -> None:
    """Draw predictions and their entropy; pictures that are there are kept."""
    todo = [case for case in cases if not (round_.labels / FOLDER / f"{case}.png").is_file()]
    if not todo:
        return
    model = Path(design.model)
    content, plans = (
        json.loads((model / name).read_text(encoding="utf-8"))
        for name in ("dataset.json", "plans.json")
    )
    reader = recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    images = design.raw_folder / IMAGES_UNLABELED
    draw_predictions(todo, images, round_.labels, content, reader, True, design.processes)


def draw_curves(rounds: Sequence[Round]) -> Figure:
    """Draw Dice, changes and numbers of scans over the rounds."""
    drawn = Figure(figsize=(11, 3.6), dpi=90, layout="constrained")
    dice, change, scans = drawn.subplots(1, 3)
    tested = [one for one in rounds if one.validation is not None and one.validation.mean]
    at = [one.number for one in tested]
    found = [one.validation for one in tested if one.validation is not None]
    dice.plot(at, [one.mean for one in found], "o-", label="mean")
    dice.plot(at, [one.worst for one in found], "v--", label="worst case")
    choices = {one.number: one.choice for one in rounds if one.choice is not None}
    changed = {n: choice.changed for n, choice in choices.items() if choice.changed is not None}
    change.plot(list(changed), list(changed.values()), "o-")
    kept = [len(choice.kept) for choice in choices.values()]
    dropped = [len(c.decisions) - k for c, k in zip(choices.values(), kept, strict=True)]
    scans.bar(list(choices), kept, label="kept")
    scans.bar(list(choices), dropped, bottom=kept, label="dropped")
    for axis, title in ((dice, "Dice"), (change, "changed labels"), (scans, "scans")):
        _finish(axis, title, [one.number for one in rounds])
    return drawn


def _finish(axis: Axes, title: str, numbers: Sequence[int]) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("round")
    axis.set_xticks(list(numbers))
    axis.grid(axis="y", alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _commands(layout: Layout, design: Design) -> Code:
    """Return every command of the rounds as it was called."""
    lines = []
    for number in range(1, design.rounds + 1):
        round_ = layout.round(design, number)
        for name in step_names(design, round_):
            record = read_record(round_.folder / "steps", name)
            if record.command:
                given = [f'{key}="{value}"' for key, value in (record.environment or {}).items()]
                lines += [f"# round {number}, {name}: {record.seconds:.0f} s"]
                lines += [" ".join([*given, record.command])]
    return Code("\n".join(lines))


def _picture(path: Path, caption: str) -> Picture:
    return Picture(path.read_bytes(), caption)
