"""A user's own folders of images, some with labels, in any format that can be read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.cases import DatasetForm
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.generic.channels import (
    names_of_channels,
    source_of,
    split_channels,
)
from nnunet_semisup.dataset_conversion.generic.collect import Found, collect
from nnunet_semisup.dataset_conversion.generic.labels import Labels, read_channels, read_labels
from nnunet_semisup.dataset_conversion.generic.options import SPLIT_OPTION, add_arguments
from nnunet_semisup.dataset_conversion.generic.readers import (
    LabelReader,
    needs_image,
    read_any_image,
)
from nnunet_semisup.dataset_conversion.generic.split import Request, choose, group_cases
from nnunet_semisup.dataset_conversion.generic.structure_masks import Masks, names_of_masks
from nnunet_semisup.dataset_conversion.reading import formats
from nnunet_semisup.dataset_conversion.reading.label_names import plain
from nnunet_semisup.dataset_conversion.reading.pictures import ENDINGS as PICTURE_ENDINGS
from nnunet_semisup.dataset_conversion.reading.pictures import NNUNET_ENDINGS, picture_components
from nnunet_semisup.dataset_conversion.reading.scans import TrustingAffine
from nnunet_semisup.dataset_conversion.shared_options import need_folder
from nnunet_semisup.dataset_conversion.subsets import Split
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError
from nnunet_semisup.dataset_conversion.writing.target import read_json
from nnunet_semisup.errors import UserError

__all__ = ["NAME", "SPLIT_OPTION", "TITLE", "add_arguments", "prepare"]

NAME = "Generic"
TITLE = "your own folders: nii, nrrd, mha, gipl, DICOM series, png, tif, bmp, jpg"
_LINKED_SCANS = (".nrrd", ".mha")
"""Formats beside ``.nii.gz`` that nnU-Net reads and SimpleITK writes compressed."""


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    need_folder(arguments.raw_dir, "give the one with your images and labels")
    content = read_json(arguments.raw_dir / "dataset.json")
    found = collect(arguments)
    return prepare_found(arguments, found, content)


def prepare_found(
    arguments: argparse.Namespace, found: Found, content: Mapping[str, Any]
) -> Prepared:
    """Do the same for cases that were found already; ``content`` is a ``dataset.json`` there."""
    collected = found.collected
    request = Request(
        arguments.split, arguments.labeled, arguments.labeled_list, _validation(arguments)
    )
    has_label = {case: collected.cases[case].label is not None for case in found.training}
    try:
        groups = group_cases([*found.training, *found.test], arguments.group_regex)
        split = choose(has_label, found.test, groups, request, bool(collected.unlabeled))
        form = make_form(arguments, found, content, split)
    except UserError:
        # What is wrong with the names usually explains why a split or a form cannot be had.
        collected.findings.raise_faults(f"{collected.root} cannot be converted:")
        raise
    return Prepared(collected, split, form)


def _validation(arguments: argparse.Namespace) -> str | None:
    if arguments.no_val and arguments.validation is not None:
        raise UserError("--validation and --no-val exclude each other.")
    return arguments.validation


def make_form(
    arguments: argparse.Namespace, found: Found, content: Mapping[str, Any], split: Split
) -> DatasetForm:
    """Return what the files hold, judged from the first image that can be read."""
    collected = found.collected
    first = next(iter((*collected.cases.values(), *collected.unlabeled.values()))).images[0]
    dimensions, components = layout(first)
    if dimensions == 4:
        _split_channels(arguments, content, collected, first)
        dimensions, components = 3, 1
    images = [f.images for f in (*collected.cases.values(), *collected.unlabeled.values())]
    linked = arguments.link != "copy" and (dimensions, components) == (3, 1)
    source, ending, ready = _kind([path for files in images for path in files], linked)
    used = [case for case, subset in split.subset_of().items() if subset.needs_label]
    files = [found.collected.cases[case].label for case in used if case in found.collected.cases]
    channels, labels = _meaning(
        arguments, content, len(images[0]), components, [path for path in files if path]
    )
    _note_shared_patients(collected, split)
    return DatasetForm(
        name=arguments.name,
        source=source,
        channel_names=dict(enumerate(channels)),
        labels=labels.names,
        label_map=labels.label_map,
        label_choices=labels.choices,
        regions_class_order=labels.regions_class_order,
        read_image=read_any_image,
        read_label=_label_reader(arguments, collected, labels),
        description=str(content.get("description", "Converted from the user's own files.")),
        reference=str(content.get("reference", "")),
        licence=str(content.get("licence", content.get("license", ""))),
        check=partial(_check_number, expected=len(images[0])),
        assumptions={
            "label_map": {
                str(old): new for old, new in (*labels.label_map.items(), *labels.choices.items())
            },
            "channel_names": channels,
            "labels": dict(labels.names),
            "group_regex": arguments.group_regex,
        },
        images_ready=ready,
        file_ending=ending,
        dimensions=dimensions,
        components=components,
        test_labels=found.test_labels,
        label_advice="--label-map OLD:NEW says what other values mean",
        absent_label_advice="check --label-names and --label-map",
    )


def _label_reader(
    arguments: argparse.Namespace, collected: Collected, labels: Labels
) -> LabelReader:
    """Return what reads the labels, whichever of the kinds they are."""
    chosen = {str(name): value for name, value in labels.choices.items() if isinstance(name, str)}
    named = {
        plain(name): value
        for name, value in labels.names.items()
        if isinstance(value, int) and value not in chosen.values()
    }
    masks = {name: value for name, value in {**named, **chosen}.items() if value}
    return LabelReader(
        images={
            files.label: files.images[0]
            for files in collected.cases.values()
            if files.label is not None and needs_image(files.label)
        },
        masks=Masks(masks, arguments.overlap),
    )


def _split_channels(
    arguments: argparse.Namespace, content: Mapping[str, Any], collected: Collected, first: Path
) -> None:
    """Take the fourth dimension of scans for their channels, if as many channels are named.

    Raises:
        UserError: other channels are named, or none.
    """
    number = read_any_image(first).geometry.size[3]
    files = len(collected.cases and next(iter(collected.cases.values())).images)
    if files != 1 or not names_of_channels(arguments.channel_names, content, number):
        raise UserError(
            f"{first} has a fourth dimension of {number} volumes. If these are channels, such as "
            f"T2 and ADC, give --channel-names with {number} names; every file is split into "
            "channels then. If they are points in time, save the one that is meant as a file of "
            "three dimensions."
        )
    split_channels(collected, number)


def _meaning(
    arguments: argparse.Namespace,
    content: Mapping[str, Any],
    files: int,
    values: int,
    label_files: Sequence[Path],
) -> tuple[list[str], Labels]:
    """Return channel names and labels; what is wrong with either is said at once."""
    problems = []
    try:
        channels = read_channels(arguments.channel_names, content, files, values)
    except UserError as error:
        problems.append(str(error))
    try:
        labels = read_labels(
            arguments.label_names or _masks_of(arguments, content, label_files),
            arguments.labels_json,
            arguments.label_map,
            content,
            label_files,
        )
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return channels, labels


def _masks_of(
    arguments: argparse.Namespace, content: Mapping[str, Any], files: Sequence[Path]
) -> str | None:
    """Name masks, one file a structure, where nothing else says what the labels are."""
    if arguments.labels_json is not None or "labels" in content:
        return None
    return names_of_masks(files)


def _check_number(facts: Any, expected: int) -> list[str]:
    """Check that all cases have the same number of files."""
    number = len(facts.case.images)
    return [] if number == expected else [f"has {number} image files; others have {expected}"]


def _kind(paths: Sequence[Path], linked: bool) -> tuple[str, str, bool]:
    """Return the form's name, the ending that is written, and whether images stay as they are.

    With ``linked``, scans of any one format that nnU-Net reads do; otherwise they become NIfTI.

    Raises:
        UserError: pictures and volumes are mixed.
    """
    is_split = any(path != source_of(path) for path in paths[:1])
    paths = [source_of(path) for path in paths]
    endings = {formats.ending_of(path) or "DICOM": path for path in paths}
    stacks = [path for path in paths if path.suffix.lower() in (".tif", ".tiff")]
    pictures = endings.keys() & set(PICTURE_ENDINGS)
    if stacks and formats.is_tif_stack(stacks[0]):
        pictures = pictures - {".tif", ".tiff"}
    source = "files: " + ", ".join(sorted(endings))
    if pictures and len(pictures) < len(endings):
        listed = ", ".join(f"{path.name}" for path in endings.values())
        raise UserError(
            f"pictures (2D) and scans (3D) are mixed, such as {listed}; convert them separately."
        )
    if not pictures:
        ending = next(iter(endings))
        stay = len(endings) == 1 and not is_split
        if linked and stay and ending in _LINKED_SCANS:
            return source, ending, True
        return source, ".nii.gz", stay and ending == ".nii.gz"
    if len(endings) == 1 and next(iter(endings)) in NNUNET_ENDINGS:
        return source, next(iter(endings)), True
    return source, ".tif" if endings.keys() & {".tif", ".tiff"} else ".png", False


def layout(path: Path) -> tuple[int, int]:
    """Return dimensions and values a voxel of an image; what is unreadable is reported later."""
    try:
        volume = TrustingAffine(read_any_image)(path)
    except (UnreadableFileError, OSError):
        picture = formats.ending_of(path) in PICTURE_ENDINGS
        return (2, picture_components(path)) if picture else (3, 1)
    dimensions = len(volume.geometry.size)
    return (dimensions if dimensions in {2, 4} else 3), volume.components


def _note_shared_patients(collected: Collected, split: Split) -> None:
    """Say which patients have labeled and unlabeled cases: allowed, both are for training."""
    labeled = {split.lists.group_of(case) for case in split.labeled}
    shared = [c for c in split.unlabeled if split.lists.group_of(c) in labeled]
    if shared and split.lists.groups:
        collected.findings.warnings.append(
            f"{len(shared)} unlabeled cases are of patients who also have labeled ones: "
            f"{', '.join(shared[:10])}"
        )
