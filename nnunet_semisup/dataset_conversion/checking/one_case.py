"""Checks of single cases: each reads its files completely and reports all it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.cases import (
    CT,
    Case,
    CaseFacts,
    DatasetForm,
    FileFacts,
    Subset,
)
from nnunet_semisup.dataset_conversion.checking.duplicates import thumbnail
from nnunet_semisup.dataset_conversion.checking.intensities import (
    foreground_window,
    intensities_of,
)
from nnunet_semisup.dataset_conversion.checking.label_meaning import (
    Meaning,
    meaning_of,
    moved_names,
)
from nnunet_semisup.dataset_conversion.checking.values import value_counts
from nnunet_semisup.dataset_conversion.reading.label_names import layer_names, listed, named_values
from nnunet_semisup.dataset_conversion.reading.scans import TAKE_FINITE, not_finite, source_sha256
from nnunet_semisup.dataset_conversion.volume import (
    UnreadableFileError,
    UnusableFileError,
    Volume,
    array_sha256,
)
from nnunet_semisup.preparation.rules import (
    STRICT,
    Accepted,
    is_positive,
    judge_constant_channels,
    judge_empty_label,
    same_place,
)

_WHOLE = "Take the original file; a mask is resampled by nearest neighbour, never interpolated"
_ROUNDING = 1e-2
_ROUNDED = (
    "They are whole numbers but for the rounding of a program, and nnU-Net would cut them off to "
    "the number below; save them as integers (numpy.rint)"
)
_JPEG = (
    "JPEG changes values near edges: take the original file, or save it as PNG after setting all "
    "above half of the highest value to that value and all others to 0"
)
_ONE_GRID = (
    "Take the file that belongs to it, or resample it to that grid (labels by nearest neighbour)"
)


def inspect_case(case: Case, form: DatasetForm, accepted: Accepted = STRICT) -> CaseFacts:
    """Read every file of ``case`` and report what it holds and all that is wrong with it.

    Args:
        case: the case; its label is only opened if ``case.label`` is set.
        form: what the data set expects.
        accepted: by the user, though it is a fault otherwise.
    """
    facts = CaseFacts(case)
    first: np.ndarray | None = None
    label: np.ndarray | None = None
    for number, path in enumerate(case.images):
        layout = (form.dimensions, form.components)
        volume = _read(path, form.read_image, layout, facts, facts.images.append)
        if volume is not None:
            _check_image(path, volume, facts)
            if facts.thumbnail is None and facts.images[-1].varies:
                facts.thumbnail = thumbnail(volume.grey)
            facts.intensities += map(intensities_of, volume.channels)
            first = volume.array if number == 0 else first
    constant, notes = judge_constant_channels(
        {str(f.path): None if f.varies else f.minimum for f in facts.images}, accepted
    )
    facts.faults += constant
    facts.warnings += notes
    if case.label is not None:
        label_facts: list[FileFacts] = []
        layout = (form.dimensions, 1)
        volume = _read(case.label, form.read_label, layout, facts, label_facts.append)
        if volume is not None:
            facts.label, label = label_facts[0], volume.array
            _check_label(case.label, volume, form, facts, accepted)
            if first is not None and form.channel_names.get(0, "").lower() == CT:
                facts.window = foreground_window(first, label > 0)
    elif case.subset.needs_label and (form.test_labels or case.subset is not Subset.TEST):
        facts.faults.append(
            f"is {case.subset.value} but has no label file; add it, or name the case elsewhere"
        )
    if form.check is not None and not facts.faults:
        facts.faults += form.check(facts)
    if form.check_voxels is not None and not facts.faults and first is not None:
        facts.faults += form.check_voxels(facts, first, label)
    return facts


def _read(
    path: Path,
    reader: Callable[[Path], Volume],
    layout: tuple[int, int],
    facts: CaseFacts,
    record: Callable[[FileFacts], None],
) -> Volume | None:
    """Read one file and record what it is; what stops that becomes a fault of the case.

    ``layout`` is the expected number of dimensions and of values a voxel.
    """
    try:
        volume = reader(path)
        digest = source_sha256(path)
    except UnusableFileError as error:
        facts.faults.append(f"{path}: {error}")
        return None
    except (UnreadableFileError, OSError) as error:
        facts.faults.append(f"{path}: cannot be read: {error}. Download or extract it again")
        return None
    if volume.repaired:
        facts.warnings.append(f"{path.name}: {volume.repaired}")
    array = volume.array
    if fault := _layout_fault(path, volume, *layout):
        facts.faults.append(f"{path}: {fault}")
        return None
    if fault := not_finite(array):
        facts.faults.append(f"{path}: {fault}. {TAKE_FINITE}")
        return None
    minimum, maximum = float(array.min()), float(array.max())
    total = float(array.sum(dtype=np.float64))
    read = array_sha256(array), str(array.dtype), minimum, maximum, total
    record(FileFacts(path, digest, *read, repaired=bool(volume.repaired)))
    return volume


def _layout_fault(path: Path, volume: Volume, dimensions: int, components: int) -> str | None:
    """Return why a volume cannot be looked at any further."""
    found = len(volume.geometry.size)
    if found != dimensions:
        return (
            f"has {found} dimensions; {dimensions} are expected. Save it with as many as the "
            "others, or leave it out"
        )
    if volume.components != components:
        layers = layer_names(path)
        advice = (
            f": its segments lie in layers ({listed(layers)}); save them in one"
            if layers
            else ". Save it as the others are, or leave it out"
        )
        return f"has {volume.components} values a voxel; {components} expected{advice}"
    return None if volume.array.size else "holds no voxel; take the original file"


def _check_image(path: Path, volume: Volume, facts: CaseFacts) -> None:
    """Check one channel; the first channel gives the case its geometry."""
    if not is_positive(volume.geometry.spacing):
        facts.faults.append(f"{path}: spacing {volume.geometry.spacing} is not positive")
    if facts.geometry is None:
        facts.geometry = volume.geometry
        return
    faults = facts.geometry.mismatches(volume.geometry)
    origins = facts.geometry.origin, volume.geometry.origin
    if not faults and not same_place(*origins, facts.geometry.spacing):
        faults = [f"origin {facts.geometry.origin} and {volume.geometry.origin}"]
    facts.faults += [
        f"{path}: differs from the first channel in {fault}. {_ONE_GRID}" for fault in faults
    ]


def _check_label(
    path: Path, volume: Volume, form: DatasetForm, facts: CaseFacts, accepted: Accepted
) -> None:
    """Check a label: its geometry is the image's, its values are the expected ones."""
    if facts.geometry is not None:
        faults = facts.geometry.mismatches(volume.geometry)
        facts.faults += [
            f"{path}: image and label differ in {fault}. {_ONE_GRID}" for fault in faults
        ]
        if not faults and not facts.geometry.same_origin(volume.geometry):
            facts.warnings.append(
                f"origins differ (image {facts.geometry.origin}, label {volume.geometry.origin}); "
                "the label takes the image's"
            )
    values, counts = value_counts(volume.array)
    meaning = _meaning(path, values, form, facts)
    facts.faults += [f"{path}: {fault}" for fault in meaning.faults]
    if meaning.faults:
        return
    facts.meaning = meaning
    if volume.array.dtype.kind == "f":
        facts.warnings.append("the label is stored as floating point; written as uint8")
    for value, count in zip(values, counts, strict=True):
        target = meaning.label_map[int(value)]
        facts.label_counts[target] = facts.label_counts.get(target, 0) + int(count)
    ignored = form.labels.get("ignore")
    facts.faults += judge_empty_label(str(path), facts.label_counts.keys() - {ignored}, accepted)


def _meaning(path: Path, values: np.ndarray, form: DatasetForm, facts: CaseFacts) -> Meaning:
    """Return what a label's values become; they must be whole and in the data set's table."""
    shown = ", ".join(f"{value:g}" for value in values[:10]) + (" ..." if len(values) > 10 else "")
    if not np.equal(np.mod(values, 1), 0).all():
        rounded = np.abs(values - np.rint(values)).max() <= _ROUNDING
        fault = f"the label has values that are not whole numbers ({shown})"
        return Meaning({}, faults=[f"{fault}. {_ROUNDED if rounded else _WHOLE}"])
    names = named_values(path) or {}
    facts.label_names = {int(v): names[int(v)] for v in values if int(v) in names}
    if form.label_choices is None:
        moved = moved_names(names, values, form.labels, form.label_map)
        meaning = Meaning(form.label_map, faults=moved)
    else:
        meaning = meaning_of(names, values, form.labels, form.label_map, form.label_choices)
    if not meaning.faults and not {int(value) for value in values} <= meaning.label_map.keys():
        expected = ", ".join(str(value) for value in form.label_map)
        is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
        advice = f". {_JPEG if is_jpeg else form.label_advice or 'Take the original file'}"
        fault = f"the label has the values {shown}; only {expected} are expected{advice}"
        return Meaning({}, faults=[fault])
    return meaning
