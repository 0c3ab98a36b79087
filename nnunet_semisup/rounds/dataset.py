"""A round's data set: ordinary files of nnU-Net, to be read and trained on without this package."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_semisup.atomic import atomic_path, link_or_copy
from nnunet_semisup.dataset_conversion.cases import Case, Subset
from nnunet_semisup.dataset_conversion.reading.listing import list_raw
from nnunet_semisup.dataset_conversion.volume import array_sha256
from nnunet_semisup.dataset_conversion.writing.dataset_writer import output_paths
from nnunet_semisup.dataset_conversion.writing.target import list_files
from nnunet_semisup.evaluation.inputs import Reader
from nnunet_semisup.inference.overlays import read_map
from nnunet_semisup.inference.uncertainty import file_of
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import (
    CONVERSION_REPORT,
    FINGERPRINT_FILE,
    LABELED_CLASSES_FILE,
    SPLITS_FILE,
)
from nnunet_semisup.preparation.raw import read_dataset_json
from nnunet_semisup.preparation.rules import STRICT
from nnunet_semisup.rounds.choice import Choice
from nnunet_semisup.rounds.design import Design, RoundFolder
from nnunet_semisup.scoring.doubt import doubtful_entropy

AGAIN = "_unlabeled"
"""Ends the names of scans that a method draws as unlabeled ones, beside their labels."""


@dataclass(frozen=True)
class _Marking:
    """Hold what marks the uncertain voxels of one predicted label map.

    ``above`` is an entropy, ``None`` to mark none; ``value`` is the ignore label's.
    """

    source: Path
    uncertainty: Path
    target: Path
    above: float | None
    value: int
    reader: Reader


def write_dataset(
    design: Design, round_: RoundFolder, choice: Choice, model: Path, unlabeled: bool
) -> None:
    """Write a round's raw data set, in a hidden folder that is renamed when it is whole.

    Args:
        design: of the rounds.
        round_: where to write.
        choice: which scans are kept.
        model: folder of the model that made the labels.
        unlabeled: also give all scans as unlabeled ones, for methods that learn from these.
    """
    staging = round_.folder / ".nnUNet_raw"
    shutil.rmtree(staging, ignore_errors=True)
    target = staging / design.dataset
    target.mkdir(parents=True)
    content = read_dataset_json(design.raw_folder)
    subsets = (Subset.LABELED, Subset.UNLABELED)
    cases = {case.id: case for case in list_raw(design.raw_folder, content, (), subsets).cases}
    splits = read_splits(design.preprocessed_folder / SPLITS_FILE)
    labeled = sorted({case for fold in splits for case in (*fold["train"], *fold["val"])})
    ending = content["file_ending"]
    for case in labeled:
        _link_case(cases[case], target, ending)
    for case in choice.kept:
        _link_case(_as(cases[case], Subset.LABELED, case), target, ending)
    if unlabeled:
        for case in sorted(one.case for one in choice.decisions):
            _link_case(_as(cases[case], Subset.UNLABELED, f"{case}{AGAIN}"), target, ending)
    labels = _with_ignore(content["labels"], bool(design.confidence))
    marks = _mark(design, round_, choice, labels, target / "labelsTr", ending)
    new = {key: value for key, value in content.items() if key not in ("dataset", "semisup")}
    new |= {"labels": labels, "numTraining": len(labeled) + len(choice.kept)}
    _write(target / "dataset.json", new)
    _write(target / SPLITS_FILE, round_splits(splits, choice.kept, design.labeled_share))
    _write_labeled_classes(design, labeled, target)
    report = _report(design, round_, choice, model, labeled, marks)
    _write(target / CONVERSION_REPORT, report)
    _write(target / CONVERSION_REPORT, {**report, "files": list_files(target)})
    staging.rename(round_.folder / "nnUNet_raw")


def prepare_folder(design: Design, round_: RoundFolder) -> None:
    """Put plans, fingerprint and folds where nnU-Net preprocesses and trains."""
    round_.preprocessed.mkdir(parents=True, exist_ok=True)
    for name in (f"{design.plans}.json", FINGERPRINT_FILE):
        _copy(design.preprocessed_folder / name, round_.preprocessed / name)
    for name in ("dataset.json", SPLITS_FILE):
        _copy(round_.raw / name, round_.preprocessed / name)


def _write_labeled_classes(design: Design, labeled: Sequence[str], target: Path) -> None:
    """Take over which classes of the labeled cases were annotated, where that is said."""
    for folder in (design.raw_folder, design.preprocessed_folder):
        file = folder / LABELED_CLASSES_FILE
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            own = {case: classes for case, classes in content.items() if case in labeled}
            _write(target / LABELED_CLASSES_FILE, own)
            return


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _as(case: Case, subset: Subset, name: str) -> Case:
    """Return an unlabeled case under another subset and name."""
    return Case(name, subset, case.images, None)


def _link_case(case: Case, target: Path, ending: str) -> None:
    """Link the images of a case, its label if it has one, and files with spacings beside them."""
    images, label = output_paths(case, ending)
    files = list(zip(case.images, images, strict=True))
    if label is not None and case.label is not None:
        files.append((case.label, label))
    own = case.images[0].name.rpartition("_")[0]
    for source, name in files:
        place = target / name
        place.parent.mkdir(exist_ok=True)
        link_or_copy(source, place)
        side = source.with_name(f"{own}.json")  # the spacing of 3D tif
        if side.is_file():
            link_or_copy(side, place.with_name(f"{case.id}.json"))


def _with_ignore(labels: Mapping[str, Any], needed: bool) -> dict[str, Any]:
    """Return the labels, with an ignore label above all others where one is needed."""
    if not needed or "ignore" in labels:
        return dict(labels)
    values = [v for one in labels.values() for v in (one if isinstance(one, list) else [one])]
    return {**labels, "ignore": max(values) + 1}


def round_splits(
    splits: Sequence[Mapping[str, Any]], kept: Sequence[str], labeled_share: float
) -> list[dict[str, list[str]]]:
    """Return the folds of a round, and behind them as many of the labeled cases alone.

    nnU-Net draws a case for each patch from the list ``train``, so that a case that is named more
    often is drawn more often.

    Args:
        splits: the user's folds.
        kept: scans with predicted labels.
        labeled_share: part of the patches to come from labeled scans.
    """
    folds = []
    for fold in splits:
        ratio = labeled_share / (1 - labeled_share)
        times = max(1, round(ratio * len(kept) / len(fold["train"])))
        folds.append({"train": [*fold["train"]] * times + [*kept], "val": list(fold["val"])})
    alone = [{"train": list(fold["train"]), "val": list(fold["val"])} for fold in splits]
    return [*folds, *alone]


def _mark(
    design: Design,
    round_: RoundFolder,
    choice: Choice,
    labels: Mapping[str, Any],
    target: Path,
    ending: str,
) -> dict[str, dict[str, Any]]:
    """Write the labels of kept scans and return what is known of each."""
    plans = json.loads((Path(design.model) / "plans.json").read_text(encoding="utf-8"))
    reader = recursive_find_reader_writer_by_name(plans["image_reader_writer"])
    regions = any(isinstance(v, list) for n, v in labels.items() if n != "background")
    heads = len(labels) - ("ignore" in labels) - regions
    above = doubtful_entropy(design.confidence, heads, regions) if design.confidence else None
    value = int(labels.get("ignore", 0))
    jobs = [
        _Marking(
            round_.labels / f"{case}{ending}",
            file_of(round_.labels, case, ending),
            target / f"{case}{ending}",
            above,
            value,
            reader,
        )
        for case in choice.kept
    ]
    found = map_cases(_mark_one, jobs, choice.kept, design.processes, "writing labels")
    return dict(zip(choice.kept, found, strict=True))


def _mark_one(job: _Marking) -> dict[str, Any]:
    """Write one label map, its uncertain voxels marked."""
    labels, properties = job.reader().read_seg(str(job.source))
    labels = labels[0].astype(np.uint8)
    foreground = np.count_nonzero(labels)
    marked = np.zeros(labels.shape, bool)
    if job.above is not None:
        marked = read_map(job.uncertainty, labels.shape, job.reader) > job.above
        labels[marked] = job.value
    job.reader().write_seg(labels, str(job.target), properties)
    side = job.source.with_suffix(".json")
    if side.is_file():
        link_or_copy(side, job.target.with_suffix(".json"))
    counts = np.bincount(labels.ravel())
    return {
        "voxels_sha256": array_sha256(labels),
        "label_voxels": {str(v): int(n) for v, n in enumerate(counts) if n},
        "ignored": float(marked.mean()),
        "ignored_over_foreground": float(marked.sum() / max(foreground, 1)),
    }


def _report(
    design: Design,
    round_: RoundFolder,
    choice: Choice,
    model: Path,
    labeled: Sequence[str],
    marks: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the record of where every label came from; equal for equal inputs."""
    accepted = STRICT.or_as_converted(design.raw_folder)
    decisions = {one.case: one for one in choice.decisions}
    empty = any(set(one["label_voxels"]) <= {"0"} for one in marks.values())
    source = {
        "model": str(model),
        "checkpoints": {
            file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(model.glob(f"fold_*/{design.checkpoint}"))
        },
    }
    cases: dict[str, Any] = {case: {"label": {"origin": "annotated"}} for case in labeled}
    for case in choice.kept:
        told = {"score": decisions[case].score, "measure": choice.measure, **marks[case]}
        cases[case] = {"label": {"origin": "predicted", **told}}
    left = {one.case: one.reason for one in choice.decisions if not one.kept}
    return {
        "written_by": "nnunet_semisup rounds",
        "versions": {name: version(name) for name in ("nnunet-semisup", "nnunetv2")},
        "settings": {
            "round": round_.folder.name,
            "source": str(design.raw_folder),
            **asdict(design),
            "allow_constant_channels": accepted.constant_channels,
            "copies_end_with": AGAIN,
            "allow_empty": accepted.empty_labels or empty,
        },
        "labels_predicted_by": source,
        "totals": {"annotated": len(labeled), "predicted": len(choice.kept), "dropped": len(left)},
        "cases": cases,
        "dropped": left,
    }


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
