"""Rank the unlabeled scans of a data set: predict, score, write a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.inference.overlays import draw_predictions
from nnunet_semisup.inference.predict import Run
from nnunet_semisup.inference.request import Request
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED, SPLITS_FILE
from nnunet_semisup.preparation.lock import lock_of_part
from nnunet_semisup.preparation.raw import (
    DatasetFolders,
    is_junk,
    list_images,
    read_dataset_json,
    training_labels,
)
from nnunet_semisup.scoring.cases import CaseScores, labeled_shapes, score_cases
from nnunet_semisup.scoring.order import places
from nnunet_semisup.scoring.voting import predict_votes, write_json

TABLE, BASIS, SCORES = "ranking.csv", "ranked_with.json", "ranking.json"
"""In the output folder: the table, what predicted, and the scores as they are."""


@dataclass(frozen=True)
class Ranking:
    """Say what is ranked, by what, and where it is written.

    Attributes:
        folders: of the data set, whose ``imagesUn`` is ranked.
        model: folder of the trained model.
        folds: that vote; with one, its mirrored images do.
        checkpoint: name of the file in each fold.
        output: folder.
        before: predictions of the round before.
        mirroring: whether the network predicts mirrored images, too.
        by: name of the order.
        seed: of the random orders.
        overlays: how many scans to draw.
    """

    folders: DatasetFolders
    model: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    output: Path
    before: Path | None = None
    mirroring: bool = True
    by: str = "stratified"
    seed: int = 0
    overlays: int = 0


def labels_to_compare(folders: DatasetFolders, folds: Sequence[int | str]) -> list[Path]:
    """Return the label files that some folds train on; without a list of folds, all.

    Labels of validation cases are not looked at, so that their scores stay honest.

    Raises:
        UserError: there is no label file of such a case.
    """
    labels = training_labels(folders.raw, read_dataset_json(folders.raw))
    there = {case: path for case, path in labels.items() if path.is_file()}
    splits = read_splits(folders.preprocessed / SPLITS_FILE) or read_splits(
        folders.raw / SPLITS_FILE
    )
    listed = [splits[int(f)]["train"] for f in folds if f != "all" and int(f) < len(splits)]
    cases = {case for train in listed for case in train} if len(listed) == len(folds) else {*there}
    found = [there[case] for case in sorted(cases & there.keys())]
    if not found:
        raise UserError(
            f"{folders.raw} has no label of a case that the folds "
            f"{' '.join(map(str, folds))} train on; sizes and shapes are compared with these."
        )
    return found


def rank(ranking: Ranking, run: Run) -> list[CaseScores]:
    """Predict and score ``imagesUn``, write table and pictures, and return the scores in order.

    One of several parts only predicts and scores its cases, and returns nothing: the whole, which
    keeps what they made, writes the table.

    Raises:
        UserError: the data set, the model or the output folder do not fit; nothing was written.
    """
    folders = ranking.folders
    content = read_dataset_json(folders.raw)
    images = folders.raw / IMAGES_UNLABELED
    names = sorted(list_images(images, content["file_ending"]).cases)
    if not names:
        raise UserError(f"{images} has no unlabeled scan to rank.")
    labels = labels_to_compare(folders, ranking.folds)
    request = Request(
        images=str(images),
        output=str(ranking.output),
        model=ranking.model,
        folds=ranking.folds,
        checkpoint=ranking.checkpoint,
        mirroring=ranking.mirroring,
    )
    request.checked()
    basis = _basis(ranking, run)
    _check_basis(ranking.output, basis)
    ranking.output.mkdir(parents=True, exist_ok=True)
    with lock_of_part(ranking.output.absolute(), run.part, run.num_parts):
        write_json(ranking.output / BASIS, basis)
        predictor = predict_votes(request, run)
        if run.num_parts > 1:
            return []
        dataset_json = predictor.dataset_json
        reader = predictor.plans_manager.image_reader_writer_class
        shapes = labeled_shapes(labels, dataset_json, reader, run.exporting)
        scores = score_cases(
            *(names, ranking.output, ranking.before, shapes, dataset_json, reader, run.exporting)
        )
        place = places(scores, ranking.seed)
        scores.sort(key=lambda one: place[one.case][ranking.by])
        write_json(ranking.output / SCORES, [one.to_json() for one in scores])
        write_table(ranking.output / TABLE, scores, place)
        if ranking.overlays:
            chosen = [one.case for one in scores[: ranking.overlays]]
            draw_predictions(
                *(chosen, images, ranking.output, dataset_json, reader, True, run.exporting)
            )
    return scores


def _basis(ranking: Ranking, run: Run) -> dict[str, Any]:
    """Return what predictions depend on."""
    checkpoints = {}
    for fold in ranking.folds:
        state = (ranking.model / f"fold_{fold}" / ranking.checkpoint).stat()
        checkpoints[str(fold)] = [ranking.checkpoint, state.st_size, state.st_mtime_ns]
    return {
        "model": str(ranking.model.absolute()),
        "checkpoints": checkpoints,
        "mirroring": ranking.mirroring,
        **({"step_size": run.step_size} if run.step_size != Run.step_size else {}),
    }


def _check_basis(output: Path, basis: dict[str, Any]) -> None:
    """Refuse a folder with predictions of another model, which would be kept.

    Raises:
        UserError: it holds some, or files of something else.
    """
    # Hidden files are what a killed command had not finished.
    if not output.is_dir() or all(is_junk(path) for path in output.iterdir()):
        return
    file = output / BASIS
    if not file.is_file():
        raise UserError(f"-o {output} holds other files; give a new or an empty folder.")
    if json.loads(file.read_text(encoding="utf-8")) != basis:
        raise UserError(
            f"-o {output} holds predictions of another model, checkpoint or setting ({file}); give "
            "another folder, or remove that one."
        )


def read_scores(output: Path) -> list[CaseScores]:
    """Return the scores that :func:`rank` wrote."""
    content = json.loads((output / SCORES).read_text(encoding="utf-8"))
    return [CaseScores.of_json(one) for one in content]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def write_table(path: Path, scores: Sequence[CaseScores], place: dict[str, dict[str, int]]) -> None:
    """Write a CSV with a line a case: its places in all orders, its scores, those of each class."""
    classes = list(scores[0].entropy_of)
    header = ["case", *(f"place_{name}" for name in next(iter(place.values())))]
    header += ["entropy", "disagreement", "changed_since_round_before", "size_factor", "fragments"]
    header += [f"{what}:{c}" for what in ("entropy", "disagreement", "volume_mm") for c in classes]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow([*header, "unlike_labeled"])
        for one in scores:
            values = [one.entropy, one.disagreement, one.rounds, one.factor, one.fragments]
            for group in (one.entropy_of, one.disagreement_of, one.volume_of):
                values += [group[c] for c in classes]
            numbers = map(_number, values)
            reasons = "; ".join(one.reasons)
            writer.writerow([one.case, *place[one.case].values(), *numbers, reasons])


def _shortly(reasons: Sequence[str]) -> str:
    """Return the first of several reasons, and how many there are besides."""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more if reasons else ""


def table(scores: Sequence[CaseScores]) -> str:
    """Return the scores as a table for a terminal, in the given order."""
    rows = [
        (
            number,
            one.case,
            one.entropy,
            one.disagreement,
            "missing" if one.missing else f"{one.factor:.2f}",
            one.fragments,
            _shortly(one.reasons),
        )
        for number, one in enumerate(scores, 1)
    ]
    header = ("", "case", "entropy", "disagreement", "size", "fragments", "unlike the labeled")
    return format_table(header, rows)
