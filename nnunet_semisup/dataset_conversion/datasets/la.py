"""The 2018 Atrial Segmentation Challenge (LA): the challenge's nrrd tree and the community's h5.

Xiong et al., "A global benchmark of algorithms for segmenting the left atrium from late
gadolinium-enhanced cardiac magnetic resonance imaging", Medical Image Analysis 67, 2021, 101832.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.reading.h5 import h5_variant
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from nnunet_semisup.dataset_conversion.shared_options import (
    add_extra_unlabeled,
    add_source,
    add_spacing,
    choose_split,
    need_folder,
)
from nnunet_semisup.dataset_conversion.subsets import literature_split
from nnunet_semisup.errors import UserError

NAME = "LA2018"
TITLE = "2018 Atrial Segmentation Challenge, nrrd or h5"
SPACING = 0.625
SLICES = 88
SOURCES = ("auto", "raw", "h5")
_RAW_IMAGE, _RAW_LABEL, _H5_FILE = "lgemri.nrrd", "laendo.nrrd", "mri_norm2.h5"
_KNOWN_FILES = {_RAW_IMAGE, _RAW_LABEL, _H5_FILE, "lawall.nrrd"}
_TEST_FOLDER = "Testing Set"
_MAX_DEPTH = 4
_REFERENCE = (
    "Xiong et al., Medical Image Analysis 67, 2021, 101832, doi:10.1016/j.media.2020.101832"
)
_TERMS = (
    "No licence text was found with the data; the challenge asks to register and to cite. "
    "Not redistributable as far as known."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this data set alone."""
    add_source(parser, SOURCES)
    add_spacing(parser, SPACING)


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    split = choose_split(arguments, {"uamt": literature_split("la")}, "uamt")
    collected, source = collect(arguments.raw_dir, arguments.source)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    add_extra_unlabeled(
        collected,
        arguments.extra_unlabeled,
        lambda folder: collect(folder, source, with_test_set=True)[0],
    )
    linked = arguments.link != "copy"
    form = h5_form(arguments.spacing) if source == "h5" else raw_form(linked)
    return Prepared(collected, split, form)


def _check_slices(facts: CaseFacts) -> list[str]:
    """Check for 88 slices, which every scan of the challenge has, in both forms."""
    slices = facts.geometry.size[2] if facts.geometry else 0
    if slices == SLICES:
        return []
    return [f"has {slices} slices; every scan of the challenge has {SLICES}. Extract it again"]


def _check_raw(facts: CaseFacts) -> list[str]:
    """Check the slices, and warn if the voxel size is not the one the challenge states."""
    if facts.geometry and any(abs(s / SPACING - 1) > 1e-3 for s in facts.geometry.spacing):
        facts.warnings.append(
            f"the voxel size is {facts.geometry.spacing} mm; the challenge states {SPACING} mm"
        )
    return _check_slices(facts)


def raw_form(linked: bool = False) -> DatasetForm:
    """Return the form of the challenge's nrrd files: labels 0 and 255, geometry of the header.

    Args:
        linked: images stay the nrrd files they are, which nnU-Net reads, and labels become nrrd
            files; otherwise both become NIfTI.
    """
    return DatasetForm(
        name=NAME,
        source="raw",
        channel_names={0: "LGE-MRI"},
        labels={"background": 0, "left_atrium": 1},
        label_map={0: 0, 255: 1},
        read_image=read_itk,
        read_label=read_itk,
        description="Left atrium in late gadolinium-enhanced MR, from the challenge's nrrd files.",
        reference=_REFERENCE,
        licence=_TERMS,
        check=_check_raw,
        images_ready=linked,
        file_ending=".nrrd" if linked else ".nii.gz",
    )


def h5_form(spacing: float = SPACING) -> DatasetForm:
    """Return the form of the literature's h5 files: labels 0 and 1, no geometry.

    Args:
        spacing: voxel size in millimetres to assume, equal along all axes.

    Raises:
        UserError: the spacing is not positive, or h5py is not installed.
    """
    return h5_variant(
        raw_form(),
        spacing,
        description=(
            "Left atrium in late gadolinium-enhanced MR, from the h5 files of the semi-supervised "
            "literature: z-scored and cropped around the ground truth by their authors, so "
            "results do not compare with those on the challenge's own files. The voxel size is "
            f"assumed ({spacing:g} mm), not read."
        ),
        label_map={0: 0, 1: 1},
        check=_check_slices,
    )


def collect(
    raw_dir: Path, source: str = "auto", with_test_set: bool = False
) -> tuple[Collected, str]:
    """Find the training cases below ``raw_dir`` and decide which form they have.

    Args:
        raw_dir: the extracted archive, or the folder that holds the cases.
        source: ``raw``, ``h5``, or ``auto``, which takes the form that is there.
        with_test_set: take the cases of the challenge's test set too.

    Returns:
        The cases and their form, ``raw`` or ``h5``.

    Raises:
        UserError: no such folder, no case in it, or both forms under ``auto``.
    """
    need_folder(raw_dir)
    folders = {
        "raw": _folders_with(raw_dir, (_RAW_IMAGE, _RAW_LABEL)),
        "h5": _folders_with(raw_dir, (_H5_FILE,)),
    }
    if source == "auto":
        present = [form for form, found in folders.items() if found]
        if len(present) > 1:
            raise UserError(f"{raw_dir} holds both forms; choose --source raw or --source h5.")
        source = present[0] if present else "raw"
    if not folders[source]:
        raise UserError(
            f"{raw_dir} holds no case of the form '{source}'. Expected below it is "
            f"'Training Set/CASE/{_RAW_IMAGE}', or 'CASE/{_H5_FILE}' for the h5 form."
        )
    return _collect_files(raw_dir, folders[source], source, with_test_set), source


def _folders_with(raw_dir: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the folders below ``raw_dir``, not too deep, that hold one of ``names``."""
    found = []
    depth = len(raw_dir.parts)
    for folder, subfolders, files in os.walk(raw_dir, followlinks=True):
        subfolders.sort()
        if len(Path(folder).parts) - depth >= _MAX_DEPTH:
            subfolders.clear()
        if any(name in files for name in names):
            found.append(Path(folder))
    return found


def _collect_files(
    raw_dir: Path, folders: list[Path], source: str, with_test_set: bool
) -> Collected:
    """Collect the files of every training case; what is wrong with the tree goes to findings."""
    collected = Collected(raw_dir, {})
    training = [f for f in folders if with_test_set or f.parent.name != _TEST_FOLDER]
    seen: dict[str, Path] = {}
    for folder in training:
        case = folder.name
        if case in seen:
            collected.findings.faults.append(
                f"case {case}: is there twice, in {seen[case]} and {folder}; remove one"
            )
            continue
        seen[case] = folder
        image = folder / (_H5_FILE if source == "h5" else _RAW_IMAGE)
        label = image if source == "h5" else folder / _RAW_LABEL
        if image.exists():
            collected.cases[case] = SourceFiles((image,), label if label.exists() else None)
        else:
            collected.findings.faults.append(
                f"case {case}: {label} has no {_RAW_IMAGE} beside it; extract the case again"
            )
    _note_left_out(collected, training, len(folders) - len(training))
    return collected


def _note_left_out(collected: Collected, training: list[Path], num_test: int) -> None:
    """Say which files and folders are not used."""
    if num_test:
        collected.findings.warnings.append(
            f"the {num_test} cases in '{_TEST_FOLDER}' are in no split of the literature and are "
            "left out"
        )
    junk = [
        str(file.relative_to(collected.root))
        for folder in training
        for file in sorted(folder.iterdir())
        if file.name not in _KNOWN_FILES
    ]
    if junk:
        collected.findings.warnings.append(
            f"{len(junk)} other files are left out: {', '.join(junk)}"
        )
