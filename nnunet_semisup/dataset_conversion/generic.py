"""A user's own folders of images, some with labels, in any format that can be read."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_semisup.data.raw import is_junk
from nnunet_semisup.dataset_conversion import formats
from nnunet_semisup.dataset_conversion.arguments import add_extra_unlabeled, need_folder
from nnunet_semisup.dataset_conversion.cases import DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.convert import Collected, Prepared
from nnunet_semisup.dataset_conversion.dicom import read_dicom_folder
from nnunet_semisup.dataset_conversion.generic_arguments import SPLIT_OPTION, add_arguments
from nnunet_semisup.dataset_conversion.generic_files import (
    Naming,
    list_case_folders,
    list_images,
    list_labels,
    match,
)
from nnunet_semisup.dataset_conversion.generic_labels import Labels, read_channels, read_labels
from nnunet_semisup.dataset_conversion.generic_split import Request, choose, group_cases
from nnunet_semisup.dataset_conversion.pictures import ENDINGS as PICTURE_ENDINGS
from nnunet_semisup.dataset_conversion.pictures import NNUNET_ENDINGS
from nnunet_semisup.dataset_conversion.splits import Split
from nnunet_semisup.dataset_conversion.target import read_json
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError, Volume
from nnunet_semisup.errors import UserError

__all__ = ["NAME", "SPLIT_OPTION", "TITLE", "add_arguments", "prepare"]

NAME = "Generic"
TITLE = "your own folders: nii, nrrd, mha, gipl, DICOM series, png, tif, bmp, jpg"
IMAGE_FOLDERS = ("imagesTr", "images")
_LABEL_FOLDERS = ("labelsTr", "labels", "masks")
_TEST_FOLDERS = ("imagesTs",)
_TEST_LABEL_FOLDERS = ("labelsTs",)
_UNLABELED_FOLDERS = ("imagesUn",)
_ILLEGAL = "_seg"


@dataclass
class Found:
    """The user's cases; ``test`` and ``training`` are names of cases in ``collected``."""

    collected: Collected
    training: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    test_labels: bool = False


def prepare(arguments: argparse.Namespace) -> Prepared:
    """The cases, their subsets and their form, as the command line asks for."""
    need_folder(arguments.raw_dir)
    content = read_json(arguments.raw_dir / "dataset.json")
    found = collect(arguments)
    return prepare_found(arguments, found, content)


def prepare_found(
    arguments: argparse.Namespace, found: Found, content: Mapping[str, Any]
) -> Prepared:
    """The same for cases that were found already; ``content`` is a ``dataset.json`` beside them."""
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
        collected.findings.raise_faults(f"{collected.root} cannot be converted")
        raise
    return Prepared(collected, split, form)


def _validation(arguments: argparse.Namespace) -> str | None:
    if arguments.no_val and arguments.validation is not None:
        raise UserError("--validation and --no-val exclude each other.")
    return arguments.validation


def collect(arguments: argparse.Namespace) -> Found:
    """Find the user's cases below ``arguments.raw_dir``.

    Raises:
        UserError: a folder is not there, or the layout can be understood in two ways.
    """
    naming = Naming(tuple(_parts(arguments.image_suffix)), arguments.label_suffix)
    found = Found(Collected(arguments.raw_dir, {}))
    if arguments.image_glob:
        _collect_folders(arguments, found)
    else:
        _collect_flat(arguments, naming, found)
    _check_names(found)
    return found


def _parts(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _collect_folders(arguments: argparse.Namespace, found: Found) -> None:
    """Cases with a folder each."""
    if arguments.images or arguments.labels:
        raise UserError(
            "--image-glob is for cases with a folder each; leave --images, --labels out."
        )
    globs = (_parts(arguments.image_glob), arguments.label_glob or "")
    findings = found.collected.findings
    _add(found, *list_case_folders(arguments.raw_dir, *globs, findings), is_test=False)
    if arguments.test:
        folder = _below(arguments.raw_dir, arguments.test)
        images, labels = list_case_folders(folder, *globs, findings)
        inside = folder.resolve().is_relative_to(arguments.raw_dir.resolve())
        for case in images if inside else ():
            if case in found.training:
                found.training.remove(case)
                del found.collected.cases[case]
        _add(found, images, labels, is_test=True)
    _need_cases(found, arguments.raw_dir, f"no folder with a file like {arguments.image_glob}")
    add_extra_unlabeled(
        found.collected,
        arguments.extra_unlabeled,
        lambda extra: _as_collected(extra, list_case_folders(extra, globs[0], "", findings)[0]),
    )


def _collect_flat(arguments: argparse.Namespace, naming: Naming, found: Found) -> None:
    """A folder of images and a folder of labels, for training and for test."""
    root, findings = arguments.raw_dir, found.collected.findings
    image_folder = _choose(root, arguments.images, IMAGE_FOLDERS, "--images")
    if image_folder is None:
        raise UserError(_no_image_folder(root))
    label_folder = _choose(root, arguments.labels, _LABEL_FOLDERS, "--labels")
    labels = list_labels(label_folder, naming, findings) if label_folder else {}
    images = list_images(image_folder, naming, labels, findings)
    match(images, labels, findings)
    _add(found, images, labels, is_test=False)
    _need_cases(found, image_folder, "no image that can be read and no DICOM series")
    test_folder = _choose(root, arguments.test, _TEST_FOLDERS, "--test")
    if test_folder is not None:
        test_label_folder = _choose(
            root, arguments.test_labels, _TEST_LABEL_FOLDERS, "--test-labels"
        )
        found.test_labels = test_label_folder is not None
        labels = list_labels(test_label_folder, naming, findings) if test_label_folder else {}
        images = list_images(test_folder, naming, labels, findings)
        match(images, labels, findings)
        _add(found, images, labels, is_test=True)
    unlabeled = [root / n for n in _UNLABELED_FOLDERS if (root / n).is_dir()]
    add_extra_unlabeled(
        found.collected,
        [*unlabeled, *arguments.extra_unlabeled],
        lambda extra: _as_collected(extra, list_images(extra, naming, (), findings)),
    )


def _no_image_folder(root: Path) -> str:
    """What to type where the images are in none of the usual folders."""
    inside = sorted(path for path in root.iterdir() if not is_junk(path))
    folders = ", ".join(path.name for path in inside if path.is_dir())
    has = f"only {folders}" if folders else "no folder at all"
    direct = (
        "; '--images .' takes those directly in it" if any(map(formats.ending_of, inside)) else ""
    )
    return (
        f"{root} has no folder {' or '.join(IMAGE_FOLDERS)}, {has}. Say where the images are: "
        f"--images DIR, or --image-glob PATTERN for cases with a folder each{direct}."
    )


def _choose(root: Path, given: Path | None, names: Sequence[str], option: str) -> Path | None:
    """The folder that was named, else the one of the usual names that is there."""
    if given is not None:
        return _below(root, given)
    there = [root / name for name in names if (root / name).is_dir()]
    if len(there) > 1:
        raise UserError(
            f"{root} has {' and '.join(path.name for path in there)}; choose one by {option}."
        )
    return there[0] if there else None


def _below(root: Path, given: Path) -> Path:
    """``given`` in ``root`` if it is there, else as it stands."""
    for folder in (root / given, given):
        if folder.is_dir():
            return folder
    raise UserError(f"{given} is not a folder, neither in {root} nor from here.")


def _as_collected(folder: Path, images: Mapping[str, tuple[Path, ...]]) -> Collected:
    return Collected(folder, {case: SourceFiles(files, None) for case, files in images.items()})


def _add(
    found: Found,
    images: Mapping[str, tuple[Path, ...]],
    labels: Mapping[str, Path],
    is_test: bool,
) -> None:
    """Take cases into ``found``; a name that is there already is a fault."""
    for case in sorted(images):
        if case in found.collected.cases:
            found.collected.findings.faults.append(
                f"case {case}: is there twice, {found.collected.cases[case].images[0]} and "
                f"{images[case][0]}; rename one"
            )
            continue
        found.collected.cases[case] = SourceFiles(images[case], labels.get(case))
        (found.test if is_test else found.training).append(case)
    if is_test:
        found.test_labels = found.test_labels or bool(labels)


def _need_cases(found: Found, place: Path, what: str) -> None:
    """Refuse an empty folder, with all that explains it.

    Raises:
        UserError: there is no training case.
    """
    if not found.training:
        found.collected.findings.raise_faults(f"{place} cannot be converted")
        raise UserError(f"{place} has {what}; known endings are {', '.join(formats.ENDINGS)}.")


def _check_names(found: Found) -> None:
    """Names that nnU-Net would misunderstand."""
    collected = found.collected
    for case in (*collected.cases, *collected.unlabeled):
        if case.startswith((".", "_")) or case.endswith(_ILLEGAL) or "/" in case:
            collected.findings.faults.append(
                f"case {case}: a name must not start with '.' or '_' nor end in '{_ILLEGAL}'; "
                "rename it, or take the text off by --image-suffix"
            )


def make_form(
    arguments: argparse.Namespace, found: Found, content: Mapping[str, Any], split: Split
) -> DatasetForm:
    """What the files hold, judged from the first image that can be read."""
    collected = found.collected
    images = [f.images for f in (*collected.cases.values(), *collected.unlabeled.values())]
    source, ending, ready = _kind([path for files in images for path in files])
    dimensions, components = layout(images[0][0])
    channels, labels = _meaning(arguments, content, len(images[0]), components)
    _note_shared_patients(collected, split)
    return DatasetForm(
        name=arguments.name,
        source=source,
        channel_names=dict(enumerate(channels)),
        labels=labels.names,
        label_map=labels.label_map,
        regions_class_order=labels.regions_class_order,
        read_image=read_image,
        read_label=formats.read_label,
        description=str(content.get("description", "Converted from the user's own files.")),
        reference=str(content.get("reference", "")),
        licence=str(content.get("licence", content.get("license", ""))),
        check=partial(_check_number, expected=len(images[0])),
        assumptions={
            "label_map": {str(old): new for old, new in labels.label_map.items()},
            "channel_names": channels,
            "labels": dict(labels.names),
            "group_regex": arguments.group_regex,
        },
        images_ready=ready,
        file_ending=ending,
        dimensions=dimensions,
        components=components,
        test_labels=found.test_labels,
        groups=split.lists.groups,
        label_advice="--label-map OLD:NEW says what other values mean",
    )


def _meaning(
    arguments: argparse.Namespace, content: Mapping[str, Any], files: int, values: int
) -> tuple[list[str], Labels]:
    """Channel names and labels; what is wrong with either is said at once."""
    problems = []
    try:
        channels = read_channels(arguments.channel_names, content, files, values)
    except UserError as error:
        problems.append(str(error))
    try:
        labels = read_labels(
            arguments.label_names, arguments.labels_json, arguments.label_map, content
        )
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return channels, labels


def _check_number(facts: Any, expected: int) -> list[str]:
    """All cases have the same number of files."""
    number = len(facts.case.images)
    return [] if number == expected else [f"has {number} image files; others have {expected}"]


def read_image(path: Path) -> Volume:
    """Read an image file, or a folder with a DICOM series.

    Raises:
        UnreadableFileError: see :func:`formats.read_image` and :func:`read_dicom_folder`.
    """
    return read_dicom_folder(path) if path.is_dir() else formats.read_image(path)


def _kind(paths: Sequence[Path]) -> tuple[str, str, bool]:
    """Name of the form, the ending that is written, and whether images can stay as they are.

    Raises:
        UserError: pictures and volumes are mixed.
    """
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
        return source, ".nii.gz", endings.keys() == {".nii.gz"}
    if len(endings) == 1 and next(iter(endings)) in NNUNET_ENDINGS:
        return source, next(iter(endings)), True
    return source, ".tif" if endings.keys() & {".tif", ".tiff"} else ".png", False


def layout(path: Path) -> tuple[int, int]:
    """Dimensions and values a voxel of an image; what cannot be read is reported later."""
    try:
        volume = read_image(path)
    except (UnreadableFileError, OSError):
        picture = formats.ending_of(path) in PICTURE_ENDINGS
        return (2, 3) if picture else (3, 1)
    return (2 if len(volume.geometry.size) == 2 else 3), volume.components


def _note_shared_patients(collected: Collected, split: Split) -> None:
    """Say which patients have labeled and unlabeled cases: allowed, both are for training."""
    labeled = {split.lists.group_of(case) for case in split.labeled}
    shared = [c for c in split.unlabeled if split.lists.group_of(c) in labeled]
    if shared and split.lists.groups:
        collected.findings.warnings.append(
            f"{len(shared)} unlabeled cases are of patients who also have labeled ones: "
            f"{', '.join(shared[:10])}"
        )
