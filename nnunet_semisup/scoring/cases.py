"""All scores of all cases: those of the voting, and those of the label maps that came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunet_semisup.evaluation.evaluate import class_mask
from nnunet_semisup.evaluation.inputs import (
    Reader,
    SegmentationClass,
    read_label_map,
    segmentation_classes,
)
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.scoring.disagreement import between_rounds
from nnunet_semisup.scoring.shape import Shape, shape_of, unlike_labeled
from nnunet_semisup.scoring.voting import scores_file


@dataclass(frozen=True)
class CaseScores:
    """Hold the scores of one case; greater ones are of scans that the model knows less about.

    Attributes:
        case: its name.
        disagreement: of folds or mirrored images, mean over classes; ``None`` where none votes.
        entropy: expected one of the foreground.
        rounds: voxels that changed since the round before; ``None`` in the first.
        missing: classes that every labeled case has and this one has not.
        factor: by which a size is outside of the labeled cases'; 1 inside.
        fragments: part of a class scattered beyond what labeled cases show.
        reasons: what is unlike the labeled cases, in words.
        disagreement_of, entropy_of, volume_of: by class.
    """

    case: str
    disagreement: float | None
    entropy: float
    rounds: float | None
    missing: tuple[str, ...]
    factor: float
    fragments: float
    reasons: tuple[str, ...]
    disagreement_of: dict[str, float | None]
    entropy_of: dict[str, float]
    volume_of: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary; :meth:`of_json` reads it."""
        return asdict(self)

    @classmethod
    def of_json(cls, content: dict[str, Any]) -> CaseScores:
        """Return the scores of :meth:`to_json`."""
        lists = {name: tuple(content[name]) for name in ("missing", "reasons")}
        return cls(**{**content, **lists})


@dataclass(frozen=True)
class _Job:
    path: Path
    before: Path | None
    reader: Reader
    classes: tuple[SegmentationClass, ...]


def _shapes(job: _Job) -> tuple[dict[str, Shape], float | None]:
    """Return the shape of each class, and what changed since ``before``."""
    found = read_label_map(job.path, job.reader, trust_affine=True)
    shapes = {c.name: shape_of(class_mask(found, c), found.spacing) for c in job.classes}
    if job.before is None:
        return shapes, None
    before = read_label_map(job.before, job.reader, trust_affine=True)
    return shapes, between_rounds(before.labels, found.labels)


def labeled_shapes(
    labels: Sequence[Path], dataset_json: dict[str, Any], reader: Reader, num_processes: int
) -> dict[str, list[Shape]]:
    """Return the shapes of each class in the label files of labeled cases."""
    classes = segmentation_classes(dataset_json)
    jobs = [_Job(path, None, reader, classes) for path in labels]
    names = [path.name for path in labels]
    found = map_cases(_shapes, jobs, names, num_processes, "measuring labeled cases")
    return {c.name: [shapes[c.name] for shapes, _ in found] for c in classes}


def score_cases(
    names: Sequence[str],
    predictions: Path,
    before: Path | None,
    labeled: dict[str, list[Shape]],
    dataset_json: dict[str, Any],
    reader: Reader,
    num_processes: int,
) -> list[CaseScores]:
    """Return all scores of predicted cases, in the order of their names.

    Args:
        names: of the cases.
        predictions: folder of :func:`~nnunet_semisup.scoring.voting.predict_votes`.
        before: predictions of the round before; cases that are not there have no such score.
        labeled: shapes of the labeled cases.
        dataset_json: of the model.
        reader: nnU-Net's class that reads its files.
        num_processes: cases read at a time.
    """
    ending, classes = dataset_json["file_ending"], segmentation_classes(dataset_json)
    jobs = []
    for name in names:
        earlier = None if before is None else before / f"{name}{ending}"
        known = earlier if earlier is not None and earlier.is_file() else None
        jobs.append(_Job(predictions / f"{name}{ending}", known, reader, classes))
    found = map_cases(_shapes, jobs, list(names), num_processes, "measuring predictions")
    scores = []
    for name, (shapes, rounds) in zip(names, found, strict=True):
        voted = json.loads(scores_file(predictions, name).read_text(encoding="utf-8"))
        defined = [value for value in voted["disagreement"].values() if value is not None]
        unlike = unlike_labeled(shapes, labeled)
        scores.append(
            CaseScores(
                case=name,
                disagreement=fmean(defined) if defined else None,
                entropy=voted["foreground_entropy"],
                rounds=rounds,
                missing=unlike.missing,
                factor=unlike.factor,
                fragments=unlike.fragments,
                reasons=unlike.reasons,
                disagreement_of=voted["disagreement"],
                entropy_of=voted["entropy"],
                volume_of={name: shape.volume for name, shape in shapes.items()},
            )
        )
    return scores
