"""Results of rounds so far, read from the files that they left."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.preparation.layout import CONVERSION_REPORT
from nnunet_semisup.rounds.choice import Choice, read_choice
from nnunet_semisup.rounds.commands import read_record
from nnunet_semisup.rounds.course import Model, first_model, model_of, number_of_splits
from nnunet_semisup.rounds.design import Design, Layout, RoundFolder

Header = tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """Hold the Dice of a model's validation cases, which nnU-Net measured.

    Attributes:
        dice: mean over classes, by case.
        missing: folds without a finished validation.
    """

    dice: dict[str, float]
    missing: tuple[int, ...]

    @property
    def mean(self) -> float | None:
        """Mean over cases; ``None`` as long as a fold is missing."""
        return fmean(self.dice.values()) if self.dice and not self.missing else None

    @property
    def worst(self) -> float | None:
        """The lowest; ``None`` as long as a fold is missing."""
        return min(self.dice.values()) if self.dice and not self.missing else None


@dataclass(frozen=True)
class Round:
    """Hold what is known of a round; the first model stands for round 0.

    Attributes:
        number: from 0.
        state: in words.
        choice: ``None`` before it is made.
        ignored: mean part of the kept scans' voxels that is ignored.
        validation: of the model that the round made; ``None`` before.
        seconds: of its steps.
    """

    number: int
    state: str
    choice: Choice | None
    ignored: float | None
    validation: Validation | None
    seconds: float


def read_validation(model: Model) -> Validation:
    """Read nnU-Net's ``validation/summary.json`` of a model's folds."""
    dice: dict[str, float] = {}
    missing = []
    for fold in model.folds:
        file = model.folder / f"fold_{fold}" / "validation" / "summary.json"
        if not file.is_file():
            missing.append(fold)
            continue
        for case in json.loads(file.read_text(encoding="utf-8"))["metric_per_case"]:
            values = [one["Dice"] for one in case["metrics"].values()]
            defined = [value for value in values if not math.isnan(value)]
            if defined:
                dice[Path(case["reference_file"]).name] = fmean(defined)
    return Validation(dice, tuple(missing))


def read_rounds(layout: Layout, design: Design) -> list[Round]:
    """Return what is known of the first model and of every round."""
    first = first_model(design)
    found = [Round(0, "given", None, None, read_validation(first), 0.0)]
    for number in range(1, design.rounds + 1):
        found.append(_round(layout.round(design, number), design, number))
    return found


def step_names(design: Design, round_: RoundFolder) -> list[str]:
    """Return the steps of a round in their order."""
    names = ["label", "choose", "dataset", "preprocess"]
    if (round_.folder / "steps" / "preprocess_unlabeled.json").is_file():
        names.append("preprocess_unlabeled")
    names += [f"train_{fold}" for fold in design.folds]
    if design.fine_tune and round_.raw.is_dir():
        names += [f"train_{fold + number_of_splits(round_)}" for fold in design.folds]
    return names


def _round(round_: RoundFolder, design: Design, number: int) -> Round:
    folder, names = round_.folder / "steps", step_names(design, round_)
    records = {name: read_record(folder, name) for name in names}
    choice = read_choice(round_.choice) if round_.choice.is_file() else None
    open_ = [name for name, record in records.items() if not record.finished]
    if choice and choice.converged:
        state = "converged"
    elif not open_:
        state = "finished"
    elif not any(record.attempts for record in records.values()):
        state = "waiting"
    else:
        state = f"at {open_[0]}"
    validation = None
    if state == "finished":
        validation = read_validation(model_of(design, round_, number_of_splits(round_)))
    seconds = sum(record.seconds for record in records.values())
    return Round(number, state, choice, _ignored(round_), validation, seconds)


def _ignored(round_: RoundFolder) -> float | None:
    file = round_.raw / CONVERSION_REPORT
    if not file.is_file():
        return None
    cases = json.loads(file.read_text(encoding="utf-8"))["cases"].values()
    shares = [c["label"]["ignored"] for c in cases if c["label"]["origin"] == "predicted"]
    return fmean(shares) if shares else None


def rounds_table(rounds: list[Round]) -> tuple[Header, list[tuple[object, ...]]]:
    """Return a line a round: state, kept and dropped scans, change, Dice."""
    header = ("round", "state", "kept", "dropped", "changed", "ignored", "Dice", "worst", "s")
    rows: list[tuple[object, ...]] = []
    for one in rounds:
        kept = len(one.choice.kept) if one.choice else None
        dropped = len(one.choice.decisions) - len(one.choice.kept) if one.choice else None
        validation = one.validation
        rows.append(
            (
                one.number,
                one.state,
                kept,
                dropped,
                one.choice.changed if one.choice else None,
                one.ignored,
                validation.mean if validation else None,
                validation.worst if validation else None,
                round(one.seconds) if one.seconds else None,
            )
        )
    return header, rows


def status(layout: Layout, design: Design) -> str:
    """Return the table of all rounds for a terminal."""
    header, rows = rounds_table(read_rounds(layout, design))
    return format_table(header, rows)
