"""Evaluate a folder of predictions against a folder of references."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnunet_semisup.dataset_conversion.checking.label_meaning import moved_names
from nnunet_semisup.dataset_conversion.reading.label_names import named_values
from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.inputs import (
    CasePair,
    EvaluationInputs,
    LabelMap,
    LabelScheme,
    Reader,
    SegmentationClass,
    find_inputs,
    read_label_map,
)
from nnunet_semisup.evaluation.metrics import MaskMetrics, compute_metrics
from nnunet_semisup.evaluation.names import CLDICE, METRICS
from nnunet_semisup.parallel import map_cases
from nnunet_semisup.preparation.image_files import require_complete

SPACING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CaseResult:
    """Hold the metrics of one case for each class by its name; spacing in mm, one value an axis."""

    name: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    classes: dict[str, MaskMetrics]
    ignored_voxels: int = 0
    undeclared_values: tuple[int, ...] = ()
    """Values of the prediction that are no class; they count as background."""
    placement_differs: bool = False
    prediction_sha256: str = ""
    """Hash of the predicted file, by which a later comparison sees whether it was replaced."""
    spacing_from: str | None = None
    """Role whose spacing was taken where not both are known, or ``"neither"``."""


@dataclass(frozen=True)
class Evaluation:
    """Hold the results of all cases, ordered by name, and what they were computed from.

    Attributes:
        classes: the evaluated classes, in the order of the dataset.json.
        warnings: sentences for the user about suspicious input.
        metrics: names of the values that each class has in each case.
    """

    inputs: EvaluationInputs
    classes: tuple[SegmentationClass, ...]
    cases: tuple[CaseResult, ...]
    warnings: tuple[str, ...]
    metrics: tuple[str, ...] = METRICS


@dataclass(frozen=True)
class _Job:
    pair: CasePair
    scheme: LabelScheme
    reader: Reader
    trust_affine: bool
    with_cldice: bool


def evaluate_folders(
    reference_folder: Path,
    prediction_folder: Path,
    dataset_json: Path | None = None,
    num_processes: int = 1,
    allow_missing: bool = False,
) -> Evaluation:
    """Compute the metrics of every case and class; write nothing.

    Args:
        reference_folder: label files, named CASE plus file ending.
        prediction_folder: predicted label files of the same names.
        dataset_json: source of labels, ignore label and file ending; looked for if not given.
        num_processes: cases evaluated at the same time.
        allow_missing: leave out references without a prediction instead of refusing.

    Raises:
        UserError: the input is unusable; lists every missing, unreadable or mismatching case.
    """
    inputs = find_inputs(reference_folder, prediction_folder, dataset_json, allow_missing)
    return evaluate_inputs(inputs, num_processes)


def evaluate_inputs(
    inputs: EvaluationInputs, num_processes: int = 1, with_cldice: bool = False
) -> Evaluation:
    """Compute the metrics of what :func:`find_inputs` found; see :func:`evaluate_folders`."""
    common = (inputs.scheme, inputs.reader, inputs.trust_affine, with_cldice)
    jobs = [_Job(pair, *common) for pair in inputs.pairs]
    names = [pair.name for pair in inputs.pairs]
    outcomes = map_cases(_evaluate_case, jobs, names, num_processes, "Evaluating")
    problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{len(problems)} of {len(jobs)} cases cannot be evaluated:\n{listed}\n"
            "References and predictions must be readable label maps on the same voxel grid, with "
            "references of declared values only. Repair or remove these files, or give the "
            "dataset.json that fits with --dataset-json, and run again; nothing was written."
        )
    cases = tuple(outcome for outcome in outcomes if isinstance(outcome, CaseResult))
    classes = inputs.scheme.classes or _found_classes(cases)
    if not classes:
        raise UserError(
            f"neither '{inputs.reference_folder}' nor '{inputs.prediction_folder}' holds a "
            "nonzero value. "
            "Give the classes with --dataset-json if that is right."
        )
    cases = tuple(_with_all_classes(case, classes, with_cldice) for case in cases)
    warnings = (*inputs.warnings, *_case_warnings(cases))
    metrics = (*METRICS, CLDICE) if with_cldice else METRICS
    return Evaluation(inputs, classes, cases, warnings, metrics)


def evaluate_label_maps(
    reference: LabelMap, prediction: LabelMap, scheme: LabelScheme, with_cldice: bool = False
) -> CaseResult:
    """Compute the metrics of two label maps on one voxel grid, for a case without a name.

    Voxels with the ignore label in the reference belong to no mask. clDice is computed on request.

    Raises:
        ValueError: the maps differ in shape or spacing, or the reference has values that the scheme
            does not declare.
    """
    _check_grid(reference, prediction)
    classes = scheme.classes
    if classes is None:
        values = sorted({*reference.values, *prediction.values} - {0})
        classes = tuple(SegmentationClass(str(value), (value,)) for value in values)
    evaluated = reference.labels != (-1 if scheme.ignore_label is None else scheme.ignore_label)
    declared = {0, *(value for c in classes for value in c.values)}
    if unknown := sorted(set(reference.values) - declared - {scheme.ignore_label}):
        raise ValueError(
            f"reference has values that '{scheme.source}' does not declare: "
            f"{', '.join(map(str, unknown))}"
        )
    return CaseResult(
        name="",
        shape=reference.labels.shape,
        spacing=reference.spacing,
        classes={
            c.name: compute_metrics(
                class_mask(prediction, c) & evaluated,
                class_mask(reference, c) & evaluated,
                reference.spacing,
                with_cldice,
            )
            for c in classes
        },
        ignored_voxels=int(evaluated.size - np.count_nonzero(evaluated)),
        undeclared_values=tuple(sorted(set(prediction.values) - declared)),
        placement_differs=not _close(
            reference.placement,
            prediction.placement,
            SPACING_TOLERANCE * min(1.0, *reference.spacing),
        ),
    )


def class_mask(label_map: LabelMap, segmentation_class: SegmentationClass) -> npt.NDArray[np.bool_]:
    """Return the boolean mask ``(*spatial)`` of a class or region."""
    if len(segmentation_class.values) == 1:
        return label_map.labels == segmentation_class.values[0]
    return np.isin(label_map.labels, segmentation_class.values)


def _evaluate_case(job: _Job) -> CaseResult | str:
    """Return the result, or the reason why there is none."""
    maps: dict[str, LabelMap] = {}
    for role, path in (("reference", job.pair.reference), ("prediction", job.pair.prediction)):
        try:
            require_complete(path)
            maps[role] = read_label_map(path, job.reader, job.trust_affine)
        # Readers of many formats: each has its own exceptions for broken files.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{job.pair.name}: {role} '{path}' is not usable: {reason}"
    reference, prediction = maps["reference"], maps["prediction"]
    maps = {
        "reference": reference.in_lengths_of(prediction),
        "prediction": prediction.in_lengths_of(reference),
    }
    if contradiction := _named_otherwise(job, maps["reference"].values):
        return f"{job.pair.name}: reference '{job.pair.reference}': {contradiction}"
    known = [role for role, label_map in maps.items() if label_map.spacing_known]
    source = None if len(known) == len(maps) else known[0] if known else "neither"
    if source in maps:
        maps = {role: replace(m, spacing=maps[source].spacing) for role, m in maps.items()}
    try:
        result = evaluate_label_maps(
            maps["reference"], maps["prediction"], job.scheme, job.with_cldice
        )
    except ValueError as error:
        return f"{job.pair.name}: {error}"
    return replace(
        result,
        name=job.pair.name,
        spacing_from=source,
        prediction_sha256=source_sha256(job.pair.prediction),
    )


def _named_otherwise(job: _Job, values: tuple[int, ...]) -> str:
    """Say why a reference that names its values means others than the data set's labels do."""
    names = named_values(job.pair.reference)
    if not names:
        return ""
    labels = {c.name: c.values for c in job.scheme.classes or ()}
    return "; ".join(moved_names(names, values, labels, {value: value for value in values}))


def _check_grid(reference: LabelMap, prediction: LabelMap) -> None:
    if reference.labels.shape != prediction.labels.shape:
        raise ValueError(
            f"reference has size {reference.labels.shape}, prediction {prediction.labels.shape}"
        )
    if not _close(reference.spacing, prediction.spacing, 0):
        raise ValueError(
            f"reference has spacing {_rounded(reference)} mm, prediction {_rounded(prediction)} mm"
        )


def _rounded(label_map: LabelMap) -> tuple[float, ...]:
    return tuple(round(s, 5) for s in label_map.spacing)


def _close(first: tuple[float, ...], second: tuple[float, ...], absolute: float) -> bool:
    return len(first) == len(second) and np.allclose(
        first, second, rtol=SPACING_TOLERANCE, atol=absolute
    )


def _found_classes(cases: tuple[CaseResult, ...]) -> tuple[SegmentationClass, ...]:
    values = sorted({int(name) for case in cases for name in case.classes})
    return tuple(SegmentationClass(str(value), (value,)) for value in values)


def _with_all_classes(
    case: CaseResult, classes: tuple[SegmentationClass, ...], with_cldice: bool
) -> CaseResult:
    """Return the case with an entry for each class; one that only others hold is empty here."""
    empty = np.zeros(1, dtype=bool)
    nothing = compute_metrics(empty, empty, (1.0,), with_cldice)
    return replace(case, classes={c.name: case.classes.get(c.name) or nothing for c in classes})


def _case_warnings(cases: tuple[CaseResult, ...]) -> list[str]:
    warnings = []
    displaced = [case.name for case in cases if case.placement_differs]
    if displaced:
        warnings.append(
            "origin or direction of reference and prediction differ, voxels were compared by "
            f"index: {', '.join(displaced)}"
        )
    for source, taken in (("prediction", None), ("reference", None), ("neither", "1")):
        if names := [case.name for case in cases if case.spacing_from == source]:
            warnings.append(
                f"no JSON file with the spacing beside reference or prediction, "
                f"{taken or f'that of the {source}'} was taken: {', '.join(names)}"
            )
    undeclared = [case for case in cases if case.undeclared_values]
    if undeclared:
        listed = [f"{c.name} ({', '.join(map(str, c.undeclared_values))})" for c in undeclared]
        warnings.append(
            "values that are no class of the dataset.json count as background in the predictions "
            f"of: {', '.join(listed)}"
        )
    return warnings
