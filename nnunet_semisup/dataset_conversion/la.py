"""The 2018 Atrial Segmentation Challenge (LA): the challenge's nrrd tree and the community's h5.

Xiong et al., "A global benchmark of algorithms for segmenting the left atrium from late
gadolinium-enhanced cardiac magnetic resonance imaging", Medical Image Analysis 67, 2021, 101832.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from nnunet_semisup.dataset_conversion.cases import DatasetForm
from nnunet_semisup.dataset_conversion.convert import Collected, SourceFiles
from nnunet_semisup.dataset_conversion.verify import CaseFacts
from nnunet_semisup.dataset_conversion.volume import read_h5, read_itk
from nnunet_semisup.errors import UserError

NAME = "LA2018"
RAW_IMAGE, RAW_LABEL, H5_FILE = "lgemri.nrrd", "laendo.nrrd", "mri_norm2.h5"
SLICES = 88
SPACING = 0.625
_TEST_FOLDER = "Testing Set"
_MAX_DEPTH = 4


def _check_slices(facts: CaseFacts) -> list[str]:
    """Every scan of the challenge has 88 slices, in both forms."""
    assert facts.geometry is not None
    slices = facts.geometry.size[2]
    if slices == SLICES:
        return []
    return [f"has {slices} slices; every scan of the challenge has {SLICES}"]


def raw_form() -> DatasetForm:
    """The challenge's own nrrd files: labels 0 and 255, geometry from the header."""
    return DatasetForm(
        name=NAME,
        source="raw",
        channel_names={0: "LGE-MRI"},
        labels={"background": 0, "left_atrium": 1},
        label_map={0: 0, 255: 1},
        read_image=read_itk,
        read_label=read_itk,
        description="Left atrium in late gadolinium-enhanced MR, from the challenge's nrrd files.",
        reference=REFERENCE,
        licence=TERMS,
        check=_check_slices,
    )


def h5_form(spacing: float) -> DatasetForm:
    """The h5 files of the semi-supervised literature: labels 0 and 1, no geometry."""
    return DatasetForm(
        name=NAME,
        source="h5",
        channel_names={0: "LGE-MRI"},
        labels={"background": 0, "left_atrium": 1},
        label_map={0: 0, 1: 1},
        read_image=partial(read_h5, key="image", spacing=spacing),
        read_label=partial(read_h5, key="label", spacing=spacing),
        description=(
            "Left atrium in late gadolinium-enhanced MR, from the h5 files of the semi-supervised "
            "literature: z-scored and cropped around the ground truth by their authors, so "
            "results do not compare with those on the challenge's own files. The voxel size is "
            f"assumed ({spacing:g} mm), not read."
        ),
        reference=REFERENCE,
        licence=TERMS,
        check=_check_slices,
        assumptions={"spacing": spacing, "axes": "x, y, z"},
    )


REFERENCE = "Xiong et al., Medical Image Analysis 67, 2021, 101832, doi:10.1016/j.media.2020.101832"
TERMS = (
    "No licence text was found with the data; the challenge asks to register and to cite. "
    "Not redistributable as far as known."
)


def collect(raw_dir: Path, source: str = "auto") -> tuple[Collected, str]:
    """Find the cases below ``raw_dir`` and decide which form they have.

    Args:
        raw_dir: the extracted archive, or the folder of cases itself.
        source: ``raw``, ``h5`` or ``auto``, which looks.

    Raises:
        UserError: no such folder, no case, or both forms under ``auto``.
    """
    if not raw_dir.is_dir():
        raise UserError(f"{raw_dir} is not a folder; give the one the data were extracted to.")
    folders = {
        "raw": _case_folders(raw_dir, (RAW_IMAGE, RAW_LABEL)),
        "h5": _case_folders(raw_dir, (H5_FILE,)),
    }
    if source == "auto":
        present = [form for form, found in folders.items() if found]
        if len(present) > 1:
            raise UserError(f"{raw_dir} holds both forms; choose with --source raw or --source h5.")
        source = present[0] if present else "raw"
    if not folders[source]:
        raise UserError(
            f"{raw_dir} holds no case of the form '{source}'. Expected is "
            f"'Training Set/CASE/{RAW_IMAGE}' or '.../CASE/{H5_FILE}' below it."
        )
    return _collect_files(raw_dir, folders[source], source), source


def _case_folders(raw_dir: Path, names: tuple[str, ...]) -> list[Path]:
    """Folders below ``raw_dir``, not too deep, that hold one of ``names``."""
    found = []
    base = len(raw_dir.parts)
    for folder, subfolders, files in os.walk(raw_dir):
        subfolders.sort()
        if len(Path(folder).parts) - base >= _MAX_DEPTH:
            subfolders.clear()
        if any(name in files for name in names):
            found.append(Path(folder))
    return found


def _collect_files(raw_dir: Path, folders: list[Path], source: str) -> Collected:
    """The files of every training case."""
    collected = Collected(raw_dir, {})
    test = [folder for folder in folders if folder.parent.name == _TEST_FOLDER]
    if test:
        collected.warnings.append(
            f"the {len(test)} cases in '{_TEST_FOLDER}' are in no split of the literature; left out"
        )
    for folder in folders:
        if folder.parent.name == _TEST_FOLDER:
            continue
        image = folder / (H5_FILE if source == "h5" else RAW_IMAGE)
        label = image if source == "h5" else folder / RAW_LABEL
        if folder.name in collected.cases:
            collected.faults.append(f"case {folder.name} is there twice, once in {folder}")
        elif not image.exists():
            collected.faults.append(
                f"case {folder.name}: {label} has no image {RAW_IMAGE} beside it"
            )
        else:
            collected.cases[folder.name] = SourceFiles((image,), label if label.exists() else None)
    return collected
