"""Fit the temperature of an uncertainty map on cases that the network has not trained on.

[1] Guo et al., On calibration of modern neural networks, ICML 2017, arXiv 1706.04599.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from nnunet_semisup.atomic import atomic_path
from nnunet_semisup.inference.predictor import SemisupPredictor
from nnunet_semisup.inference.request import Request
from nnunet_semisup.preparation.folds import read_splits
from nnunet_semisup.preparation.layout import SPLITS_FILE, is_whole

FILE = "semisup_calibration.json"
"""In a fold's folder: fitted temperatures, and what they were fitted on."""
VOXELS = 100_000
"""Voxels of a case that take part, drawn without replacement."""
NUMBERS = 250_000_000
"""Logits of all cases together, at most: 1 GB."""
BINS = 15
"""Of the calibration error, as [1]."""
RANGE = (0.05, 20.0)
"""Temperatures that are looked through."""


@dataclass(frozen=True)
class Calibration:
    """Hold a temperature and what it does to the voxels that it was fitted on."""

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def fit(logits: Tensor, labels: Tensor) -> Calibration:
    """Return the temperature of the greatest likelihood.

    Args:
        logits: ``(N, K)`` of N voxels, up to a constant their log-probabilities.
        labels: ``(N,)`` true classes.
    """

    def nll(temperature: float) -> float:
        return float(F.cross_entropy(logits / temperature, labels))

    bounds = tuple(np.log(RANGE))
    found = minimize_scalar(
        lambda log: nll(float(np.exp(log))),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-4},
    )
    best = float(np.exp(found.x))
    errors = [calibration_error((logits / t).softmax(1), labels) for t in (1.0, best)]
    return Calibration(best, nll(1.0), nll(best), *errors)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error of the greatest probability, in equal bins ([1]).

    Args:
        probabilities: ``(N, K)``.
        labels: ``(N,)`` true classes.
    """
    confidence, guess = probabilities.max(1)
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gap = confidence.double() - (guess == labels).double()
    sums = torch.zeros(BINS, dtype=torch.double).index_add_(0, bins, gap)
    return float(sums.abs().sum() / len(labels))


def voxels_of(
    logits: Tensor,
    segmentation: Tensor,
    label_manager: Any,
    generator: torch.Generator,
    voxels: int = VOXELS,
) -> tuple[Tensor, Tensor]:
    """Return logits and labels of drawn voxels, of regions one binary row a voxel and region.

    Args:
        logits: ``(K, *spatial)``.
        segmentation: ``(*spatial)`` labels; negative ones are background, the ignore label is left
            out.
        label_manager: nnU-Net's, of the data set.
        generator: draws.
        voxels: drawn, at most.
    """
    label = segmentation.flatten().long().clamp_min(0)
    kept = torch.ones_like(label, dtype=torch.bool)
    if label_manager.has_ignore_label:
        kept = label != label_manager.ignore_label
    index = kept.nonzero().flatten()
    index = index[torch.randperm(len(index), generator=generator)[:voxels]]
    rows, label = logits.flatten(1).T[index].float(), label[index]
    if not label_manager.has_regions:
        return rows, label
    regions = [
        r if isinstance(r, (tuple, list)) else (r,) for r in label_manager.foreground_regions
    ]
    inside = torch.stack([torch.isin(label, torch.tensor(region)) for region in regions], 1)
    rows = rows.flatten()
    return torch.stack([torch.zeros_like(rows), rows], 1), inside.flatten().long()


def temperature_of(predictor: SemisupPredictor, request: Request) -> float:
    """Return the temperature of a model's uncertainty: as it was stored, or fitted now and stored.

    Says so where it is 1 because there is nothing to fit it on.
    """
    if len(request.folds) > 1:
        return _uncalibrated("no case is held out from all folds")
    fold = request.folds[0]
    file = request.model / f"fold_{fold}" / FILE
    key, basis = _basis(predictor, request)
    stored = _read(file)
    if stored.get(key, {}).get("fitted_on") == basis:
        print(f"The uncertainty has the temperature {stored[key]['temperature']:.3f} of {file}")
        return float(stored[key]["temperature"])
    cases, reason = held_out_cases(predictor, fold)
    if not cases:
        return _uncalibrated(reason)
    print(f"Fitting the temperature of the uncertainty on {len(cases)} validation cases")
    found = fit_on_cases(predictor, cases)
    print(
        f"Temperature {found.temperature:.3f}; expected calibration error "
        f"{found.ece_before:.4f} before, {found.ece_after:.4f} after"
    )
    stored[key] = {**asdict(found), "cases": [name for _, name in cases], "fitted_on": basis}
    try:
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(stored, indent=2), encoding="utf-8")
    except OSError as error:
        print(f"note: the temperature is not kept for the next time: {error}")
    return found.temperature


def _uncalibrated(reason: str) -> float:
    print(f"warning: the uncertainty is uncalibrated (temperature 1): {reason}")
    return 1.0


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _basis(predictor: SemisupPredictor, request: Request) -> tuple[str, dict[str, Any]]:
    """Return the name of a setting, and what of it a temperature depends on."""
    choice = predictor.choice
    checkpoint = request.model / f"fold_{request.folds[0]}" / request.checkpoint
    state = checkpoint.stat()
    mirroring = request.mirroring
    key = f"{request.checkpoint} {choice.spread} {choice.weights} {choice.member} {mirroring}"
    settings = {"step_size": predictor.tile_step_size, "mirroring": mirroring}
    return key, {"checkpoint_bytes": state.st_size, "written": int(state.st_mtime), **settings}


def held_out_cases(
    predictor: SemisupPredictor, fold: int | str
) -> tuple[list[tuple[Path, str]], str]:
    """Return folder and name of the fold's preprocessed validation cases, or why there are none."""
    if fold == "all":
        return [], "fold_all was trained on all cases"
    if not nnUNet_preprocessed.is_set():
        return [], "nnUNet_preprocessed is not set, where the fold's validation cases would be"
    plans = predictor.plans_manager
    dataset = Path(str(nnUNet_preprocessed), plans.dataset_name)
    splits = dataset / SPLITS_FILE
    if not splits.is_file():
        return [], f"there is no '{splits}', which names the fold's validation cases"
    listed = read_splits(splits)
    if int(fold) >= len(listed):
        return [], f"'{splits}' has no fold {fold}"
    folder = dataset / predictor.configuration_manager.data_identifier
    names = [str(name) for name in listed[int(fold)]["val"]]
    there = [name for name in names if is_whole(folder, name)]
    if not there:
        return [], f"'{folder}' has none of the fold's validation cases"
    return [(folder, name) for name in there], ""


def fit_on_cases(predictor: SemisupPredictor, cases: list[tuple[Path, str]]) -> Calibration:
    """Return the temperature of the mean of a predictor's predictions for preprocessed cases."""
    generator = torch.Generator().manual_seed(0)
    labels_of = predictor.label_manager
    voxels = max(1000, min(VOXELS, NUMBERS // (len(cases) * labels_of.num_segmentation_heads)))
    drawn = [
        voxels_of(predictor.mean_logits(image), label, labels_of, generator, voxels)
        for image, label in _preprocessed(cases)
    ]
    logits, labels = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return fit(logits, labels)


def _preprocessed(cases: list[tuple[Path, str]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield image ``(C, *spatial)`` and labels ``(*spatial)`` of each case."""
    for folder, name in cases:
        dataset = infer_dataset_class(str(folder))(str(folder), [name])
        image, label, *_ = dataset.load_case(name)
        yield torch.from_numpy(np.array(image, np.float32)), torch.from_numpy(np.array(label[0]))
