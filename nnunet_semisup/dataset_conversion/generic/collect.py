"""The cases in a user's own folders: which file is an image, a label, of which case, for what."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from nnunet_semisup.dataset_conversion.cases import SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected
from nnunet_semisup.dataset_conversion.findings import Findings, counted
from nnunet_semisup.dataset_conversion.generic.case_folders import list_case_folders
from nnunet_semisup.dataset_conversion.generic.dicom_folders import DicomLabels, find_labels
from nnunet_semisup.dataset_conversion.generic.files import (
    Images,
    Naming,
    images_in,
    labels_in,
    match,
)
from nnunet_semisup.dataset_conversion.generic.layouts import suggestion
from nnunet_semisup.dataset_conversion.generic.structure_masks import (
    folders_of_structures,
    mask_files,
)
from nnunet_semisup.dataset_conversion.reading import formats
from nnunet_semisup.dataset_conversion.shared_options import add_extra_unlabeled
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import composed, is_junk, named

IMAGE_FOLDERS = ("imagesTr", "images")
_LABEL_FOLDERS = ("labelsTr", "labels", "masks")
_TEST_FOLDERS = ("imagesTs",)
_TEST_LABEL_FOLDERS = ("labelsTs",)
_UNLABELED_FOLDERS = ("imagesUn",)
_ILLEGAL = "_seg"
_NO_IMAGE = "no image that can be read and no DICOM series"


@dataclass
class Found:
    """Hold the user's cases; ``test`` and ``training`` are names of cases in ``collected``."""

    collected: Collected
    training: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    test_labels: bool = False


def collect(arguments: argparse.Namespace) -> Found:
    """Find the user's cases below ``arguments.raw_dir``.

    Raises:
        UserError: a folder is not there, or the layout can be understood in two ways.
    """
    naming = Naming(
        tuple(_parts(arguments.image_suffix)),
        arguments.label_suffix,
        arguments.image_prefix,
        arguments.label_prefix,
    )
    found = Found(Collected(arguments.raw_dir, {}))
    if arguments.image_glob:
        _collect_folders(arguments, naming, found)
    else:
        _collect_flat(arguments, naming, found)
    _check_names(found)
    _tell_lacking_labels(found)
    return found


def _tell_lacking_labels(found: Found) -> None:
    """Warn of cases without a label where unlabeled ones have a folder: a mask may be missing."""
    cases = found.collected.cases
    lacking = [case for case in found.training if cases[case].label is None]
    if found.collected.unlabeled and 0 < len(lacking) < len(found.training):
        found.collected.findings.warnings.append(
            f"{counted(len(lacking), 'case')} beside the labeled ones without a label, used as "
            f"unlabeled: {named(lacking)}"
        )


def _parts(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _collect_folders(arguments: argparse.Namespace, naming: Naming, found: Found) -> None:
    """Collect cases with a folder each; their labels may be in one folder of all cases."""
    if arguments.labels and arguments.label_glob:
        raise UserError("--labels and --label-glob exclude each other: give where the labels are.")
    globs = (_parts(arguments.image_glob), arguments.label_glob or "")
    findings = found.collected.findings
    root = arguments.raw_dir
    place = _below(root, arguments.images, "--images") if arguments.images else root
    images, labels = list_case_folders(place, *globs, findings)
    if arguments.labels:
        folder = _below(root, arguments.labels, "--labels")
        labels = labels_in(folder, naming, findings) or _list_mask_folders(folder)
        match(images, labels, findings)
    _add(found, images, labels, is_test=False)
    if arguments.test:
        folder = _below(root, arguments.test, "--test")
        images, labels = list_case_folders(folder, *globs, findings)
        _take_out(found, images)
        _add(found, images, labels, is_test=True)
    folders = [_below(root, given, "--extra-unlabeled") for given in arguments.extra_unlabeled]
    for folder in folders:
        _take_out(found, list_case_folders(folder, globs[0], "", Findings())[0])
    missing = f"no folder with a file like {arguments.image_glob}"
    add_own_unlabeled(
        found.collected,
        folders,
        lambda extra: list_case_folders(extra, globs[0], "", findings)[0],
        missing,
    )
    if not found.training:
        _refuse_empty(found.collected, place, missing)


def _take_out(found: Found, images: Images) -> None:
    """Remove the training cases that are the given images, found in a folder of other use."""
    taken = {files[0].resolve() for files in images.values()}
    for case in list(found.training):
        if found.collected.cases[case].images[0].resolve() in taken:
            found.training.remove(case)
            del found.collected.cases[case]


def _collect_flat(arguments: argparse.Namespace, naming: Naming, found: Found) -> None:
    """Collect a folder of images and a folder of labels, for training and for test."""
    root, findings = arguments.raw_dir, found.collected.findings
    extra = [_below(root, folder, "--extra-unlabeled") for folder in arguments.extra_unlabeled]
    image_folder = _choose(root, arguments.images, IMAGE_FOLDERS, "--images")
    if image_folder is None:
        raise UserError(_no_image_folder(root))
    test_folder = _choose(root, arguments.test, _TEST_FOLDERS, "--test")
    if arguments.test is None and test_folder is not None and _is_one_of(test_folder, extra):
        test_folder = None
    _check_uses({"--images": image_folder, "--test": test_folder}, extra)
    label_folder = _choose(root, arguments.labels, _LABEL_FOLDERS, "--labels")
    apart = [folder for folder in (test_folder, *extra) if folder is not None]
    images, labels, naming = _list_pair(image_folder, label_folder, naming, findings, apart)
    _add(found, images, labels, is_test=False)
    if not found.training:
        _refuse_empty(found.collected, image_folder, _NO_IMAGE)
    if test_folder is not None:
        test_label_folder = _choose(
            root, arguments.test_labels, _TEST_LABEL_FOLDERS, "--test-labels"
        )
        found.test_labels = test_label_folder is not None
        images, labels, _ = _list_pair(test_folder, test_label_folder, naming, findings, extra)
        _add(found, images, labels, is_test=True)
    add_own_unlabeled(
        found.collected,
        unlabeled_folders(root, arguments.extra_unlabeled),
        lambda extra: images_in(extra, naming, (), findings),
    )


def _list_pair(
    image_folder: Path,
    label_folder: Path | None,
    naming: Naming,
    findings: Findings,
    apart: Sequence[Path],
) -> tuple[Images, dict[str, Path], Naming]:
    """List images and their labels, by the naming that the training images settle."""
    labels: dict[str, Path] = {}
    dicom = DicomLabels()
    together = label_folder is not None and label_folder.samefile(image_folder)
    naming = replace(naming, together=together)
    if label_folder is not None:
        labels = labels_in(label_folder, naming, findings)
        labels = labels or ({} if together else _list_mask_folders(label_folder))
    if label_folder is not None and not labels:
        dicom = find_labels(label_folder, image_folder, findings)
    names = labels or dicom.names()
    if naming.digits is None:
        naming = naming.settled(image_folder, names)
    images = images_in(image_folder, naming, names, findings, apart)
    labels = labels or dicom.of(images, findings)
    if structures := folders_of_structures(labels, images):
        findings.faults.append(structures)
    else:
        match(images, labels, findings)
    return images, labels, replace(naming, together=False)


def _list_mask_folders(folder: Path) -> dict[str, Path]:
    """Return the folders in ``folder`` that hold one mask file a structure, by case."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path))
    return {composed(path.name): path for path in inside if mask_files(path)}


def _is_one_of(folder: Path, others: Sequence[Path]) -> bool:
    return any(folder.samefile(other) for other in others)


def _check_uses(folders: Mapping[str, Path | None], extra: Sequence[Path]) -> None:
    """Refuse a folder that is named for two uses.

    Raises:
        UserError: naming the options.
    """
    named = [(option, folder) for option, folder in folders.items() if folder is not None]
    named += [("--extra-unlabeled", folder) for folder in dict.fromkeys(extra)]
    for number, (option, folder) in enumerate(named):
        for other, same in named[number + 1 :]:
            if option != other and folder.samefile(same):
                raise UserError(
                    f"{option} and {other} both mean {folder}; a folder has one use. Leave {other} "
                    "out, or give it another folder: training images without a label are unlabeled "
                    "cases anyway."
                )


def unlabeled_folders(root: Path, given: Sequence[Path]) -> list[Path]:
    """Return folders of images without labels: the usual one if it has files, and the option's.

    Raises:
        UserError: a folder of the option is not there.
    """
    usual = [
        path
        for name in _UNLABELED_FOLDERS
        if (path := root / name).is_dir() and not all(map(is_junk, path.iterdir()))
    ]
    named = [_below(root, folder, "--extra-unlabeled") for folder in given]
    return [folder for folder in usual if not any(folder.samefile(n) for n in named)] + named


def add_own_unlabeled(
    collected: Collected,
    folders: Sequence[Path],
    list_folder: Callable[[Path], Images],
    missing: str = _NO_IMAGE,
) -> None:
    """Add the images in ``folders`` as unlabeled cases.

    Args:
        collected: is extended.
        folders: of images without labels.
        list_folder: finds the images of a folder.
        missing: what a folder without any lacks, for the message.

    Raises:
        UserError: a folder has no image.
    """

    def collect_folder(folder: Path) -> Collected:
        images = list_folder(folder)
        if not images:
            _refuse_empty(collected, folder, missing)
        return _as_collected(folder, images)

    add_extra_unlabeled(collected, folders, collect_folder)


def _no_image_folder(root: Path) -> str:
    """Say what to type where the images are in none of the usual folders."""
    inside = sorted(path for path in root.iterdir() if not is_junk(path))
    folders = ", ".join(path.name for path in inside if path.is_dir())
    has = f"only {folders}" if folders else "no folder at all"
    direct = (
        "; '--images .' takes those directly in it" if any(map(formats.ending_of, inside)) else ""
    )
    return (
        f"{root} has no folder {' or '.join(IMAGE_FOLDERS)}, {has}. Say where the images are: "
        f"--images DIR, or --image-glob PATTERN for cases with a folder each{direct}."
        f"{suggestion(root)}"
    )


def _choose(root: Path, given: Path | None, names: Sequence[str], option: str) -> Path | None:
    """Choose the folder that was named, else the one of the usual names that is there."""
    if given is not None:
        return _below(root, given, option)
    there = [root / name for name in names if (root / name).is_dir()]
    if len(there) > 1:
        raise UserError(
            f"{root} has {' and '.join(path.name for path in there)}; choose one by {option}."
        )
    return there[0] if there else None


def _below(root: Path, given: Path, option: str) -> Path:
    """Return the folder of ``option``: ``given`` in ``root`` if there, else as it stands."""
    for folder in (root / given, given):
        if folder.is_dir():
            return folder
    where = "" if given.is_absolute() else f", neither in {root} nor from here"
    raise UserError(f"{option} {given} is not a folder{where}. Check the path.")


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


def _refuse_empty(collected: Collected, place: Path, what: str) -> NoReturn:
    """Refuse an empty folder, with all that explains it.

    Raises:
        UserError: always.
    """
    collected.findings.raise_faults(f"{place} cannot be converted:")
    raise UserError(
        f"{place} has {what}; known endings are {', '.join(formats.ENDINGS)}.{suggestion(place)}"
    )


def _check_names(found: Found) -> None:
    """Refuse names that nnU-Net would misunderstand."""
    collected = found.collected
    for case in (*collected.cases, *collected.unlabeled):
        if case.startswith((".", "_")) or case.endswith(_ILLEGAL) or "/" in case:
            collected.findings.faults.append(
                f"case {case}: a name must not start with '.' or '_' nor end in '{_ILLEGAL}'; "
                "rename it, or take the text off by --image-suffix"
            )
