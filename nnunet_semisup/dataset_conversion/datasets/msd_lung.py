"""Task06_Lung of the Medical Segmentation Decathlon: the decathlon's tree and the community's h5.

Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022, 4128.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.checking.ct_labels import Tissue, orientation_faults
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.offers import MSD_LUNG_SPACING, OFFERS
from nnunet_semisup.dataset_conversion.reading.h5 import h5_variant
from nnunet_semisup.dataset_conversion.reading.scans import read_itk
from nnunet_semisup.dataset_conversion.reading.tree import (
    by_case,
    choose_source,
    files_below,
    named_like,
)
from nnunet_semisup.dataset_conversion.shared_options import (
    add_extra_unlabeled,
    choose_split,
    need_folder,
)
from nnunet_semisup.dataset_conversion.subsets import literature_split
from nnunet_semisup.errors import UserError

TISSUE = Tissue("tumor tissue", -600, 300, tolerated=0.5)
"""Wide and tolerant: tumors have air around and in them, so only gross errors are refused."""
_SCAN = r"(lung_\d{3})\.nii(\.gz)?"
_H5 = r"(lung_\d{3})\.h5"
_FURTHER = {"raw": r"(.+?)(?:_0000)?\.nii(\.gz)?", "h5": r"(.+)\.h5"}
"""Names of further scans, which need not be of the decathlon."""
_EXPECTED = "'Task06_Lung' with imagesTr and labelsTr, or 'lung_001.h5' ... for the h5 form"
_LABELS: dict[str, int | tuple[int, ...]] = {"background": 0, "cancer": 1}
_REFERENCE = (
    "Antonelli et al., Nature Communications 13, 2022, 4128, doi:10.1038/s41467-022-30695-9"
)
_TERMS = "CC BY-SA 4.0"
_AIR = -900
_DERIVED = (
    "the literature's split of this data set is derived: the first 48 scans by name train and "
    "the last 15 test, a rule read from PICK's code; the list files it loads are not published"
)


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    split = choose_split(arguments, {"pick": literature_split("msd_lung")}, "pick")
    collected, source = collect(arguments.raw_dir, arguments.source, arguments.use_images_ts)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    if "msd_lung.json" in split.lists.name:
        collected.findings.warnings.append(_DERIVED)
    add_extra_unlabeled(
        collected, arguments.extra_unlabeled, partial(collect_further, source=source)
    )
    if source == "h5":
        return Prepared(collected, split, h5_form(arguments.spacing))
    return Prepared(collected, split, raw_form(ready=collected.all_images_end(".nii.gz")))


def raw_form(ready: bool = True) -> DatasetForm:
    """Return the form of the decathlon's own files.

    Args:
        ready: all images are ``.nii.gz``, so nnU-Net can read them as they are.
    """
    return DatasetForm(
        name=OFFERS["msd_lung"].name,
        source="raw",
        channel_names={0: "CT"},
        labels=dict(_LABELS),
        label_map={0: 0, 1: 1},
        read_image=read_itk,
        read_label=read_itk,
        description="Primary lung tumors in CT, from the Medical Segmentation Decathlon.",
        reference=_REFERENCE,
        licence=_TERMS,
        check=_check_hounsfield,
        check_voxels=_check_label_on_ct,
        images_ready=ready,
    )


def h5_form(spacing: float = MSD_LUNG_SPACING) -> DatasetForm:
    """Return the form of the literature's h5 files: no Hounsfield units, no geometry.

    Args:
        spacing: voxel size in millimetres to assume, equal along all axes.

    Raises:
        UserError: the spacing is not positive, or h5py is not installed.
    """
    return h5_variant(
        raw_form(),
        spacing,
        description=(
            "Primary lung tumors in CT, from h5 files of the semi-supervised literature: resampled "
            "to 1 mm, windowed to [-500, 275] HU, scaled to [0, 1] and cropped around the ground "
            "truth by their authors, test cases too, so results do not compare with those on the "
            "decathlon's own files. The values are no Hounsfield units. The voxel size is assumed "
            f"({spacing:g} mm), not read."
        ),
        channel_names={0: "zscore"},
    )


def _check_hounsfield(facts: CaseFacts) -> list[str]:
    """Check that there is air, which lungs hold."""
    image = facts.images[0]
    if image.minimum <= _AIR:
        return []
    return [
        f"the grey values are {image.minimum:g} to {image.maximum:g}; Hounsfield units of a chest "
        f"reach {_AIR} and below. Take the original files"
    ]


def _check_label_on_ct(_: CaseFacts, image: np.ndarray, label: np.ndarray | None) -> list[str]:
    """Check that the label does not fit clearly better when it is mirrored."""
    return [] if label is None else orientation_faults(image, label, TISSUE)


def collect(
    raw_dir: Path, source: str = "auto", use_images_ts: bool = False
) -> tuple[Collected, str]:
    """Find the scans of ``imagesTr`` and ``labelsTr`` below ``raw_dir``, or the h5 files.

    Args:
        raw_dir: ``Task06_Lung``, or a folder that holds it.
        source: one of those of ``--source``.
        use_images_ts: take the scans of ``imagesTs`` as unlabeled cases.

    Raises:
        UserError: no such folder, no scan in it, both forms under ``auto``, or no ``imagesTs``
            where it is asked for.
    """
    need_folder(raw_dir)
    collected = Collected(raw_dir, {})
    files = files_below(raw_dir, collected.findings)
    scans, h5 = named_like(files, _SCAN), named_like(files, _H5)
    by_folder: dict[str, list[tuple[str, Path]]] = {}
    for path, match in scans:
        by_folder.setdefault(path.parent.name, []).append((match[1], path))
    present = {"raw": "imagesTr" in by_folder, "h5": bool(h5)}
    source = choose_source(raw_dir, source, present, _EXPECTED)
    if source == "h5":
        images = by_case(((match[1], path) for path, match in h5), collected.findings)
        labels = images
    else:
        if "labelsTr" not in by_folder:
            raise UserError(
                f"{raw_dir} has scans in imagesTr and none in labelsTr; give the folder that holds "
                "both, 'Task06_Lung'."
            )
        images = by_case(by_folder["imagesTr"], collected.findings, "image")
        labels = by_case(by_folder["labelsTr"], collected.findings, "label")
    collected.cases = {
        case: SourceFiles((path,), labels.get(case)) for case, path in sorted(images.items())
    }
    collected.findings.faults += [
        f"case {case}: {path} has no image in imagesTr; extract the archive again"
        for case, path in labels.items()
        if case not in images
    ]
    _treat_images_ts(collected, by_folder.get("imagesTs", []), use_images_ts)
    return collected, source


def _treat_images_ts(collected: Collected, scans: list[tuple[str, Path]], use: bool) -> None:
    """Take the decathlon's test scans, or say that they are there.

    Raises:
        UserError: they are asked for and not there.
    """
    if use and not scans:
        raise UserError(f"--use-imagesTs: {collected.root} holds no imagesTs with scans.")
    if use:
        test = Collected(collected.root, {})
        for case, path in by_case(scans, test.findings, "image").items():
            test.cases[case] = SourceFiles((path,), None)
        collected.add_unlabeled(test)
    elif scans:
        collected.findings.warnings.append(
            f"the {len(scans)} scans in imagesTs have no public labels and are left out; "
            "--use-imagesTs takes them as unlabeled cases"
        )


def collect_further(folder: Path, source: str) -> Collected:
    """Find scans of any name in the same form, for use without labels.

    Args:
        folder: with NIfTI or h5 files at any depth; folders named ``labels...`` are passed over.
        source: the form.

    Raises:
        UserError: no such folder, or no scan in it.
    """
    need_folder(folder)
    collected = Collected(folder, {})
    below = files_below(folder, collected.findings)
    files = [file for file in below if not file.parent.name.startswith("labels")]
    found = ((match[1], path) for path, match in named_like(files, _FURTHER[source]))
    images = by_case(found, collected.findings, "image")
    if not images:
        raise UserError(f"--extra-unlabeled {folder} holds no scan of the form '{source}'.")
    collected.cases = {case: SourceFiles((path,), None) for case, path in images.items()}
    return collected
