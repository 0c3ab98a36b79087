"""Find what is evaluated: pairs of files, the classes and the reader of the files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import (
    LIST_OF_IO_CLASSES,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.folders import check_folders, told_by_predict
from nnunet_semisup.evaluation.lengths import lengths_of, scaled_affine
from nnunet_semisup.evaluation.names import REPORT_NAME
from nnunet_semisup.evaluation.validation_fold import find_fold, refuse_others, training_folder
from nnunet_semisup.headers import misreading
from nnunet_semisup.headers.nifti import NIBABEL_READERS
from nnunet_semisup.preparation.raw import composed, named, read_labels_json

MAX_VALUES_PER_FILE = 256
MAX_LABEL = 65535
Reader = type[BaseReaderWriter]


@dataclass(frozen=True)
class SegmentationClass:
    """Name a class to evaluate and its label values, several for a region."""

    name: str
    values: tuple[int, ...]


def segmentation_classes(dataset_json: dict[str, Any]) -> tuple[SegmentationClass, ...]:
    """Return the classes of a data set, in the order of its ``dataset.json``."""
    return tuple(
        SegmentationClass(name, tuple(value) if isinstance(value, list) else (value,))
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    )


@dataclass(frozen=True)
class LabelScheme:
    """Say which values of a label map mean what.

    ``classes`` is ``None`` where no dataset.json says so: each nonzero value found is a class then.
    """

    classes: tuple[SegmentationClass, ...] | None = None
    ignore_label: int | None = None
    source: Path | None = None


@dataclass(frozen=True)
class CasePair:
    """Name the files of one case."""

    name: str
    reference: Path
    prediction: Path


@dataclass(frozen=True)
class EvaluationInputs:
    """Hold everything that :func:`find_inputs` found."""

    reference_folder: Path
    prediction_folder: Path
    pairs: tuple[CasePair, ...]
    scheme: LabelScheme
    reader: Reader
    file_ending: str
    missing_predictions: tuple[str, ...]
    warnings: tuple[str, ...]
    trust_affine: bool = False


@dataclass(frozen=True)
class LabelMap:
    """Hold a label map ``(*spatial)``, its values, spacing (one an axis) and placement.

    ``spacing_known`` is false for a 3D tif without the JSON file that has it, and the spacing 1.
    ``factor`` and ``denied`` are those of :class:`Lengths`.
    """

    labels: npt.NDArray[np.int32]
    values: tuple[int, ...]
    spacing: tuple[float, ...]
    placement: tuple[float, ...]
    spacing_known: bool = True
    factor: float | None = 1.0
    denied: tuple[float, ...] | None = None

    def in_lengths_of(self, other: LabelMap) -> LabelMap:
        """Return this map with the lengths of ``other``, if nnU-Net could not know better.

        Its nibabel readers write predictions without a unit, in numbers of the image's; SimpleITK
        writes the voxel size that it read, which the sform of ``other`` may deny.
        """
        denied = other.denied
        if denied is not None and self.denied is None and np.allclose(self.spacing, denied):
            return replace(self, spacing=other.spacing)
        if self.factor is not None or other.factor in (None, 1.0):
            return self
        placement = scaled_affine(self.placement, other.factor)
        spacing = tuple(step * other.factor for step in self.spacing)
        return replace(self, spacing=spacing, placement=placement, factor=other.factor)


def find_inputs(
    reference_folder: Path,
    prediction_folder: Path,
    dataset_json: Path | None = None,
    allow_missing: bool = False,
    trust_affine: bool = False,
) -> EvaluationInputs:
    """Pair the files of two folders by name and read the classes from a dataset.json.

    Without ``dataset_json`` the file is looked for in the prediction folder, in the reference
    folder and beside the latter. ``trust_affine``: see :func:`read_label_map`.

    Raises:
        UserError: a folder or the dataset.json is missing or unusable, no reference is found, or
            (unless ``allow_missing``) a reference has no prediction; all missing ones are listed.
            Of a fold's ``validation``, predictions of cases that are not in its ``val``.
    """
    check_folders(reference_folder, prediction_folder)
    found = _find_dataset_jsons(reference_folder, prediction_folder, dataset_json)
    content = read_labels_json(found[0]) if found else {}
    ending = content.get("file_ending") or _guess_file_ending(reference_folder)
    scheme = _parse_labels(content, found[0]) if found else LabelScheme()
    references = _files(reference_folder, ending)
    predictions = _files(prediction_folder, ending)
    if not references:
        raise UserError(
            f"no file ending with '{ending}' in the reference folder '{reference_folder}'"
            + (f" (the ending comes from '{found[0]}')" if found else "")
            + ". Give the folder of the label files, or another --dataset-json."
        )
    extra = sorted(set(predictions) - set(references))
    warnings = [
        *_warnings(found, scheme, extra),
        *_other_endings(reference_folder, ending, references),
    ]
    own = {name: path for name, path in predictions.items() if name in references}
    warnings += told_by_predict(reference_folder, prediction_folder, own)
    if fold := find_fold(prediction_folder, reference_folder):
        refuse_others(fold, own, prediction_folder)
        warnings += fold.warnings(own)
        if fold.val is not None:
            references = {n: p for n, p in references.items() if n in fold.val} or references
    missing = tuple(sorted(set(references) - set(predictions)))
    if len(missing) == len(references) or (missing and not allow_missing):
        raise UserError(_missing_message(missing, len(references), prediction_folder, ending))
    pairs = tuple(
        CasePair(n, references[n], predictions[n]) for n in references if n in predictions
    )
    return EvaluationInputs(
        reference_folder,
        prediction_folder,
        pairs,
        scheme,
        _choose_reader(content, ending, [pair.reference for pair in pairs]),
        ending,
        missing,
        tuple(warnings),
        trust_affine,
    )


def read_label_map(path: Path, reader: Reader, trust_affine: bool = False) -> LabelMap:
    """Read a label map with one of nnU-Net's reader classes, lengths in mm.

    A first axis that the reader added to a 2D image is removed, with its made-up spacing.

    Args:
        path: the file.
        reader: the class.
        trust_affine: take the voxel size of NIfTI from the sform where pixdim denies it.

    Raises:
        ValueError: the file holds several channels, values that are no integers, or so many
            different values that it must be an image; or the reader takes it for something else
            than it says.
        Exception: whatever the reader raises for an unreadable file.
    """
    by_nibabel = reader.__name__ in NIBABEL_READERS
    if fault := misreading(path, True, by_nibabel, trust_affine):
        raise ValueError(fault)
    array, properties = reader().read_seg(str(path))
    if array.shape[0] != 1:
        raise ValueError(f"a label map has one channel, this file has {array.shape[0]}")
    labels = _integers(array[0])
    lengths = lengths_of(path, properties, by_nibabel)
    spacing, denied = lengths.spacing, lengths.denied
    if is_2d(properties):
        labels, spacing, denied = labels[0], spacing[1:], denied and denied[1:]
    found = np.zeros(MAX_LABEL + 1, dtype=bool)
    for part in labels:  # as an index, all at once, the labels would take twice their memory
        found[part] = True
    values = tuple(int(v) for v in np.flatnonzero(found))
    if len(values) > MAX_VALUES_PER_FILE:
        raise ValueError(f"holds {len(values)} different values: is it an image?")
    known = not issubclass(reader, Tiff3DIO) or path.with_suffix(".json").is_file()
    placement = _placement(properties)
    if by_nibabel:
        placement = scaled_affine(placement, lengths.factor or 1.0)
    return LabelMap(labels, values, spacing, placement, known, lengths.factor, denied)


def _integers(array: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.int32)
    if not np.array_equal(labels, array):
        raise ValueError("holds values that are no integers: is it an image or a probability map?")
    if labels.size and not 0 <= labels.min() <= labels.max() <= MAX_LABEL:
        raise ValueError(
            f"holds values from {labels.min()} to {labels.max()}, labels are 0 to {MAX_LABEL}: "
            "is it an image?"
        )
    return labels


def is_2d(properties: dict[str, Any]) -> bool:
    """Say whether a reader's properties are of a 2D image that it gave a first axis of length 1."""
    if "sitk_stuff" in properties:
        return len(properties["sitk_stuff"]["spacing"]) == 2
    return "nibabel_stuff" not in properties and properties["spacing"][0] == 999


def _placement(properties: dict[str, Any]) -> tuple[float, ...]:
    if "sitk_stuff" in properties:
        stuff = properties["sitk_stuff"]
        return tuple(map(float, (*stuff["origin"], *stuff["direction"])))
    if "nibabel_stuff" in properties:
        stuff = properties["nibabel_stuff"]
        affine = stuff.get("reoriented_affine", stuff["original_affine"])
        return tuple(np.asarray(affine, dtype=float).ravel())
    return ()


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Map each case name to its file, sorted by name."""
    found = sorted(p for p in folder.iterdir() if not p.is_dir() and p.name.endswith(ending))
    own = (".", Path(REPORT_NAME).stem)  # a chart may lie among predictions that are pictures
    return {p.name[: -len(ending)]: p for p in found if not p.name.startswith(own)}


def _find_dataset_jsons(reference: Path, prediction: Path, given: Path | None) -> list[Path]:
    if given is not None:
        if not given.is_file():
            raise UserError(f"--dataset-json '{given}' is not a file. Give a dataset.json.")
        return [given]
    beside = (Path(os.path.abspath(reference)).parent, reference.resolve().parent)
    training = training_folder(prediction)
    places = dict.fromkeys((prediction, *([training] if training else []), reference, *beside))
    return [p / "dataset.json" for p in places if (p / "dataset.json").is_file()]


def _parse_labels(content: dict[str, Any], source: Path) -> LabelScheme:
    """Return the classes in the order of the file; 'background' and 'ignore' are none."""
    classes, ignore, bad = [], None, []
    for name, value in content["labels"].items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(type(v) is int and v >= 0 for v in values):
            bad.append(f"{name}: {value!r}")
        elif name == "ignore":
            ignore = values[0]
        elif values != [0]:
            classes.append(SegmentationClass(name, tuple(values)))
    if bad or not classes:
        raise UserError(
            f"'{source}' has unusable labels "
            f"({'; '.join(bad) or 'no class beside the background'}). "
            "Each label is a non-negative integer, or a list of them for a region."
        )
    return LabelScheme(tuple(classes), ignore, source)


def _known_endings() -> list[str]:
    """Return the endings that nnU-Net's readers take, longest first."""
    endings = {e for io_class in LIST_OF_IO_CLASSES for e in io_class.supported_file_endings}
    return sorted(endings, key=len, reverse=True)


def _other_endings(folder: Path, ending: str, cases: Collection[str]) -> list[str]:
    """Warn of label files left out for their ending whose case has no other file."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
    others = []
    for name in names:
        other = next((e for e in _known_endings() if name.lower().endswith(e)), "")
        if other and not name.endswith(ending) and name[: -len(other)] not in cases:
            others.append(name)
    if not others:
        return []
    return [
        f"{len(others)} files of '{folder}' do not end with '{ending}' and are left out: "
        f"{', '.join(others)}"
    ]


def _guess_file_ending(folder: Path) -> str:
    known = _known_endings()
    names = [p.name.lower() for p in folder.iterdir() if p.is_file() and p.name[0] != "."]
    found = {next((e for e in known if name.endswith(e)), "") for name in names} - {""}
    if len(found) != 1:
        raise UserError(
            f"the files in '{folder}' have {'several' if found else 'none'} of the endings that "
            f"nnU-Net reads ({', '.join(sorted(found or known))}) and there is no dataset.json "
            "that names one. Give it with --dataset-json."
        )
    return found.pop()


def _choose_reader(content: dict[str, Any], ending: str, examples: Sequence[Path]) -> Reader:
    name = content.get("overwrite_image_reader_writer", "None")
    if name != "None":
        try:
            return recursive_find_reader_writer_by_name(name)
        except RuntimeError as error:
            raise UserError(f"dataset.json names an unknown reader '{name}': {error}") from error
    fitting = [c for c in LIST_OF_IO_CLASSES if ending.lower() in c.supported_file_endings]
    if not fitting:
        raise UserError(f"nnU-Net has no reader for the file ending '{ending}' of dataset.json.")
    if len(fitting) == 1:
        return fitting[0]
    # One ending may have files of several kinds: 2D tif and volumes, NIfTI that ITK refuses.
    return next((c for p in examples for c in fitting if _readable(c, p)), fitting[0])


def _readable(reader: Reader, path: Path) -> bool:
    try:
        return bool(reader().read_seg(str(path))[0].ndim == 4)
    except Exception:
        return False


def _missing_message(missing: Sequence[str], total: int, folder: Path, ending: str) -> str:
    listed = "\n".join(f"  {name}{ending}" for name in missing)
    start = f"{len(missing)} of {total} references have no prediction in '{folder}':\n{listed}\n"
    there = {composed(name) for name in _files(folder, ending)}
    if alike := [name for name in missing if composed(name) in there]:
        start += (
            f"Of these, {named(alike)} are there under names that look alike and differ in how a "
            "letter with an accent is stored (Unicode NFC and NFD, as macOS writes it); rename "
            "those files. "
        )
    return f"{start}Predict these cases, or evaluate only the predicted ones with --chill."


def _meaning(scheme: LabelScheme) -> tuple[set[SegmentationClass], int | None]:
    return set(scheme.classes or ()), scheme.ignore_label


def _warnings(found: Sequence[Path], scheme: LabelScheme, extra: Sequence[str]) -> list[str]:
    warnings = []
    if extra:
        warnings.append(f"{len(extra)} predictions have no reference: {', '.join(extra)}")
    if not found:
        warnings.append("no dataset.json found: every nonzero value of the files is a class")
    for other in found[1:]:
        try:
            parsed = _parse_labels(read_labels_json(other), other)
        except UserError as error:
            warnings.append(f"'{found[0]}' is used; '{other}' is of no use: {error}")
            continue
        if _meaning(parsed) != _meaning(scheme):
            warnings.append(f"'{found[0]}' is used, '{other}' declares other labels")
    return warnings
