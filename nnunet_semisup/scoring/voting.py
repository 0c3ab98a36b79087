"""Predict scans by the mean of folds or of mirrored images, and score how these agree.

Each pass over a scan serves the mean and the score alike, and the mean is resampled once: label,
uncertainty and, later, ignored voxels come from the same probabilities.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from torch import Tensor

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.evaluation.inputs import SegmentationClass, segmentation_classes
from nnunet_semisup.inference.calibration import temperature_of
from nnunet_semisup.inference.output import whole_case, whole_files
from nnunet_semisup.inference.predict import Run, predict_files, ready_predictor
from nnunet_semisup.inference.predictor import Choice, SemisupPredictor
from nnunet_semisup.inference.request import Request
from nnunet_semisup.inference.uncertainty import RunningMean, entropy, file_of, write_map
from nnunet_semisup.preparation.raw import num_channels
from nnunet_semisup.scoring.disagreement import between_votes
from nnunet_semisup.scoring.doubt import expected_entropy, foreground_probability

FOLDER = "scores"
"""Below the predictions: a JSON file a case."""


class VotingPredictor(SemisupPredictor):
    """Give the mean of the chosen predictions and, behind it, the label map of each."""

    @torch.inference_mode()
    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """Return ``(K + N, *spatial)``: logits of the mean, and N label maps, float32.

        ``data`` is ``(C, *spatial)``.
        """
        mean, votes = RunningMean(self.label_manager.has_regions), []
        for logits in self._predictions(data):
            mean.add(logits)
            votes.append(self.label_manager.convert_logits_to_segmentation(logits.float()))
        return torch.cat([mean.logits(), torch.stack(votes).float()])


@dataclass(frozen=True)
class VotedExport:
    """Write label map, uncertainty and scores of a case, each whole or not at all.

    Runs in nnU-Net's export processes.

    Attributes:
        temperature: of the uncertainty.
    """

    temperature: float

    def __call__(
        self,
        logits: Any,
        properties: dict[str, Any],
        configuration: Any,
        plans: Any,
        dataset_json: dict[str, Any],
        truncated: str,
        save_probabilities: bool = False,
    ) -> None:
        """Write the files of a case; arguments are nnU-Net's."""
        labels, ending = plans.get_label_manager(dataset_json), dataset_json["file_ending"]
        heads, target = labels.num_segmentation_heads, Path(truncated)
        given = np.asarray(logits, dtype=np.float32)
        mean, votes = np.ascontiguousarray(given[:heads]), given[heads:].astype(np.uint16)
        scores = self._scores(mean, votes, labels.has_regions, segmentation_classes(dataset_json))
        segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            mean, plans, configuration, labels, properties, return_probabilities=True
        )
        values = self._entropy(torch.from_numpy(probabilities).float(), labels.has_regions)
        with whole_case(target, ending) as hidden:
            written = hidden.with_name(f"{hidden.name}{ending}")
            reader = plans.image_reader_writer_class
            reader().write_seg(segmentation, str(written), properties)
            place = file_of(target.parent, target.name, ending)
            place.parent.mkdir(exist_ok=True)
            suffix = place.name.removeprefix(target.name)
            with atomic_path(place, suffix=suffix) as temporary:
                write_map(values.numpy(), written, temporary, ending, reader)
            write_json(scores_file(target.parent, target.name), scores)

    def _entropy(self, probabilities: Tensor, regions: bool) -> Tensor:
        """Return the normalised entropy of tempered probabilities ``(K, *spatial)``."""
        p = probabilities.clamp(1e-7, 1 - 1e-7)
        tempered = (p.logit() if regions else p.log()) / self.temperature
        return entropy(tempered.sigmoid() if regions else tempered.softmax(0), regions)

    def _scores(
        self,
        mean: np.ndarray,
        votes: np.ndarray,
        regions: bool,
        classes: tuple[SegmentationClass, ...],
    ) -> dict[str, Any]:
        """Return the scores on the network's grid, by class and of the foreground."""
        logits = torch.from_numpy(mean)
        p = logits.sigmoid() if regions else logits.softmax(0)
        unsure = self._entropy(p, regions)
        heads = [i if regions else c.values[0] for i, c in enumerate(classes)]
        return {
            "votes": len(votes),
            "temperature": self.temperature,
            "disagreement": {c.name: between_votes(votes, c.values) for c in classes},
            "entropy": {
                c.name: expected_entropy(unsure, p[head])
                for c, head in zip(classes, heads, strict=True)
            },
            "foreground_entropy": expected_entropy(unsure, foreground_probability(p, regions)),
        }


def scores_file(output: Path, case: str) -> Path:
    """Return where the scores of a case are."""
    return output / FOLDER / f"{case}.json"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def predict_votes(request: Request, run: Run) -> VotingPredictor:
    """Predict and score all cases of a folder; whole ones, not older than their scan, are kept.

    Several folds vote, or the mirrored images of one fold.

    Args:
        request: with neither members nor uncertainty, which are chosen here.
        run: whose ``continues`` keeps whole cases.

    Returns:
        The predictor, for what it knows of the model.

    Raises:
        UserError: see :meth:`Request.checked`.
    """
    request.checked()
    mirrors = request.mirroring and len(request.folds) == 1
    choice = Choice(spread="mirrors" if mirrors else "folds")
    predictor = ready_predictor(VotingPredictor, choice, request, run)
    assert isinstance(predictor, VotingPredictor)
    output, ending = Path(request.output), predictor.dataset_json["file_ending"]
    output.mkdir(parents=True, exist_ok=True)

    channels = num_channels(predictor.dataset_json)

    def is_done(truncated: str) -> bool:
        case = Path(truncated).name
        scores = scores_file(output, case)
        files = Path(truncated + ending), file_of(output, case, ending), scores
        if not all(file.is_file() for file in files):
            return False
        images = (Path(request.images, f"{case}_{n:04d}{ending}") for n in range(channels))
        made = scores.stat().st_mtime
        return all(image.stat().st_mtime <= made for image in images if image.is_file())

    predictor.is_done = is_done
    with whole_files(VotedExport(temperature_of(predictor, request))):
        predict_files(predictor, request, run)
    return predictor
