"""The course of rounds: label, choose, write a data set, train; each step once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nnunet_semisup.preparation.layout import SPLITS_FILE
from nnunet_semisup.rounds.choice import Choice, choose, read_choice
from nnunet_semisup.rounds.commands import Steps, alone, read_record
from nnunet_semisup.rounds.dataset import prepare_folder, write_dataset
from nnunet_semisup.rounds.design import SUPERVISED, Design, Layout, RoundFolder, read_design
from nnunet_semisup.rounds.plan import method_of_trainer, settings_of
from nnunet_semisup.scoring.ranking import read_scores
from nnunet_semisup.scoring.voting import write_json
from nnunet_semisup.training.interruption import Interruption


@dataclass(frozen=True)
class Model:
    """Name a trained model and where its preprocessed data set is.

    Attributes:
        folder: of the model.
        folds: that vote.
        checkpoint: name of the file in each.
        preprocessed: ``nnUNet_preprocessed`` with its data set.
    """

    folder: Path
    folds: tuple[int, ...]
    checkpoint: str
    preprocessed: str


def first_model(design: Design) -> Model:
    """Return the model that labels the first round."""
    return Model(Path(design.model), design.folds, design.checkpoint, design.preprocessed)


def model_of(design: Design, round_: RoundFolder, splits: int) -> Model:
    """Return the model that a round has made.

    Args:
        design: of the rounds.
        round_: the round.
        splits: folds of the user's ``splits_final.json``; behind them are those for fine-tuning.
    """
    folds = tuple(fold + splits for fold in design.folds) if design.fine_tune else design.folds
    folder = round_.model(design, design.last_trainer)
    return Model(folder, folds, "checkpoint_final.pth", round_.roots["nnUNet_preprocessed"])


def run_rounds(layout: Layout, only_one: bool = False) -> Model:
    """Make all rounds, from where they stand, and return the last model.

    Args:
        layout: of the rounds.
        only_one: end with the round that is made.

    Raises:
        UserError: no scan is left to train on, or the folder has no design.
        StepFailedError: a command failed.
        StoppedError: the user stopped it.
    """
    design = read_design(layout)
    model = first_model(design)
    with Interruption() as stop, alone(layout.folder, stop) as lock:
        for number in range(1, design.rounds + 1):
            round_ = layout.round(design, number)
            steps = Steps(round_.folder / "steps", stop, lock)
            was_made = is_made(design, round_)
            choice = _label(layout, design, number, model, steps)
            if choice.converged:
                print(f"{round_.folder.name}: the labels changed by {choice.changed:.4f}: the end")
                break
            _make_data(design, round_, choice, model, steps)
            model = _train(design, round_, steps)
            if only_one and not was_made:
                break
        return model


def is_made(design: Design, round_: RoundFolder) -> bool:
    """Tell whether all trainings of a round are finished."""
    if not round_.raw.is_dir():
        return False
    trained = [*design.folds]
    if design.fine_tune:
        trained += model_of(design, round_, number_of_splits(round_)).folds
    folder = round_.folder / "steps"
    return all(read_record(folder, f"train_{fold}").finished for fold in trained)


def _label(layout: Layout, design: Design, number: int, model: Model, steps: Steps) -> Choice:
    """Predict and score all unlabeled scans, and choose."""
    round_ = layout.round(design, number)
    steps.command("label", *label_command(layout, design, number, model))

    def decide() -> None:
        earlier: dict[str, float | None] = {}
        if number > 1:
            before = read_scores(layout.round(design, number - 1).labels)
            earlier = {one.case: one.rounds for one in before}
        write_json(round_.choice, choose(read_scores(round_.labels), earlier, design).to_json())

    steps.do("choose", decide)
    return read_choice(round_.choice)


def label_command(
    layout: Layout, design: Design, number: int, model: Model
) -> tuple[list[str], dict[str, str]]:
    """Return the command that labels all scans of a round, and variables of its environment.

    Args:
        layout: of the rounds.
        design: of them.
        number: of the round.
        model: that labels.
    """
    round_ = layout.round(design, number)
    command = ["nnUNetv2_semisup_rank", "-d", design.number, "-m", str(model.folder.absolute())]
    command += ["-f", *map(str, model.folds), "-chk", model.checkpoint, "-device", design.device]
    command += ["-o", str(round_.labels.absolute()), "--disable_progress_bar"]
    command += ["-npp", str(design.processes), "-nps", str(design.processes)]
    if number > 1:
        command += ["--before", str(layout.round(design, number - 1).labels.absolute())]
    return command, {"nnUNet_raw": design.raw, "nnUNet_preprocessed": model.preprocessed}


def _make_data(
    design: Design, round_: RoundFolder, choice: Choice, model: Model, steps: Steps
) -> None:
    """Write the round's data set and preprocess it."""
    method = method_of_trainer(design.trainer)
    unlabeled = bool(method and method.uses_unlabeled)

    def write() -> None:
        if not round_.raw.is_dir():
            write_dataset(design, round_, choice, model.folder, unlabeled)
        prepare_folder(design, round_)

    steps.do("dataset", write)
    common = ["-d", design.number, "-plans_name", design.plans, "-c", design.configuration]
    words = ["nnUNetv2_preprocess", *common, "-np", str(max(1, design.processes))]
    steps.command("preprocess", words, round_.roots)
    if unlabeled:
        words = ["nnUNetv2_semisup_preprocess", *common, "-np", str(design.processes)]
        steps.command("preprocess_unlabeled", words, round_.roots)


def _train(design: Design, round_: RoundFolder, steps: Steps) -> Model:
    """Train every fold and, where asked, go on with the labeled cases alone."""
    for fold in design.folds:
        _train_fold(design, round_, steps, design.trainer, fold, design.steps)
    half = number_of_splits(round_)
    for fold in design.folds if design.fine_tune else ():
        start = round_.model(design, design.trainer) / f"fold_{fold}" / "checkpoint_final.pth"
        _train_fold(design, round_, steps, SUPERVISED, fold + half, design.fine_tune, start)
    return model_of(design, round_, half)


def number_of_splits(round_: RoundFolder) -> int:
    """Return the number of the user's folds, of which a round has two of each."""
    return len(json.loads((round_.raw / SPLITS_FILE).read_text(encoding="utf-8"))) // 2


def _train_fold(
    design: Design,
    round_: RoundFolder,
    steps: Steps,
    trainer: str,
    fold: int,
    number: int | None,
    start: Path | None = None,
) -> None:
    """Train a fold, from where it stands."""
    folder = round_.model(design, trainer) / f"fold_{fold}"
    words = ["nnUNetv2_train", design.number, design.configuration, str(fold), "-tr", trainer]
    words += ["-p", design.plans, "-device", design.device]
    if list(folder.glob("checkpoint_*.pth")):
        words.append("--c")
    elif start is not None:
        words += ["-pretrained_weights", str(start)]
    settings = settings_of(trainer, number, design.settings if start is None else "")
    variables = {**round_.roots, **({"nnUNet_semisup_set": settings} if settings else {})}
    steps.command(f"train_{fold}", words, variables)
