"""BraTS 2019: the challenge's NIfTI tree and the community's h5.

Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", IEEE Transactions
on Medical Imaging 34, 2015; Bakas et al., Scientific Data 4, 2017, and arXiv:1811.02629.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.offers import BRATS_SPACING, OFFERS
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

CHANNELS: dict[str, dict[str, str]] = {
    "flair": {"flair": "FLAIR"},
    "all": {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"},
}
"""nnU-Net's channel name by the ending of the file's name, in order."""
SIZE = (240, 240, 155)
_CASE = r"(BraTS19_\w+?)"
_SCAN = rf"{_CASE}_(flair|t1|t1ce|t2|seg)\.nii(\.gz)?"
_H5 = rf"{_CASE}\.h5"
_EXPECTED = (
    "'HGG/BraTS19_..._1/BraTS19_..._1_flair.nii.gz' and the like, or 'BraTS19_..._1.h5' for the "
    "h5 form"
)
_LABELS: dict[str, dict[str, int | tuple[int, ...]]] = {
    "wt": {"background": 0, "whole_tumor": 1},
    "regions": {
        "background": 0,
        "whole_tumor": (1, 2, 3),
        "tumor_core": (2, 3),
        "enhancing_tumor": (3,),
    },
}
_LABEL_MAPS = {"wt": {0: 0, 1: 1, 2: 1, 4: 1}, "regions": {0: 0, 2: 1, 1: 2, 4: 3}}
_REFERENCE = (
    "Menze et al., IEEE TMI 34, 2015, 1993-2024, doi:10.1109/TMI.2014.2377694; Bakas et al., "
    "Scientific Data 4, 2017, 170117, doi:10.1038/sdata.2017.117; Bakas et al., arXiv:1811.02629"
)
_TERMS = "Registration with CBICA (UPenn) and its data use agreement. Not redistributable."


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    split = choose_split(arguments, {"ssl4mis": literature_split("brats2019")}, "ssl4mis")
    channels, target = arguments.channels, arguments.target
    collected, source = collect(arguments.raw_dir, arguments.source, channels)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    add_extra_unlabeled(
        collected, arguments.extra_unlabeled, lambda folder: collect(folder, source, channels)[0]
    )
    if source == "h5":
        if (channels, target) != ("flair", "wt"):
            raise UserError(
                "the h5 files hold FLAIR and the whole tumor only; leave out --channels and "
                "--target, or give the challenge's own files."
            )
        return Prepared(collected, split, h5_form(arguments.spacing))
    ready = collected.all_images_end(".nii.gz")
    return Prepared(collected, split, raw_form(channels, target, ready))


def raw_form(channels: str = "flair", target: str = "wt", ready: bool = False) -> DatasetForm:
    """Return the form of the challenge's own files.

    Args:
        channels: key of :data:`CHANNELS`.
        target: ``wt`` or ``regions``.
        ready: all images are ``.nii.gz``, so nnU-Net can read them as they are.
    """
    regions = target == "regions"
    mapping = ", ".join(f"{old} to {new}" for old, new in _LABEL_MAPS[target].items() if old)
    return DatasetForm(
        name=OFFERS["brats2019"].name,
        source="raw",
        channel_names=dict(enumerate(CHANNELS[channels].values())),
        labels=dict(_LABELS[target]),
        label_map=_LABEL_MAPS[target],
        read_image=read_itk,
        read_label=read_itk,
        description=f"Brain tumors in MR. The challenge's label values became: {mapping}.",
        reference=_REFERENCE,
        licence=_TERMS,
        check=_check_grid,
        regions_class_order=(1, 2, 3) if regions else None,
        label_advice="A label with the value 3 was converted before; take the original file",
        images_ready=ready,
        assumptions={"channels": channels, "target": target},
    )


def h5_form(spacing: float = BRATS_SPACING) -> DatasetForm:
    """Return the form of the literature's h5 files: FLAIR and the whole tumor, axes z, y, x.

    Args:
        spacing: voxel size in millimetres to assume, equal along all axes.

    Raises:
        UserError: the spacing is not positive, or h5py is not installed.
    """
    return h5_variant(
        raw_form("flair", "wt"),
        spacing,
        description=(
            "Whole brain tumor in FLAIR, from the h5 files of the semi-supervised literature: "
            "cropped to the brain (without the last plane of each axis), clipped at the 99.9 % "
            "grey value and z-scored over the brain by their authors, so results do not compare "
            f"with those on the challenge's own files. The voxel size is assumed ({spacing:g} mm)."
        ),
        axes="zyx",
        label_map={0: 0, 1: 1},
    )


def _check_grid(facts: CaseFacts) -> list[str]:
    """Check the grid, the one that every scan of the challenge was brought to."""
    geometry = facts.geometry
    if geometry and geometry.size != SIZE:
        facts.warnings.append(
            f"the size is {geometry.size}; the challenge's scans have {SIZE}, so this one was "
            "changed by somebody"
        )
    if geometry and any(abs(step / BRATS_SPACING - 1) > 1e-3 for step in geometry.spacing):
        return [
            f"the voxel size is {geometry.spacing} mm; the challenge's scans have "
            f"{BRATS_SPACING:g} mm. Take the original files"
        ]
    return []


def collect(raw_dir: Path, source: str = "auto", channels: str = "flair") -> tuple[Collected, str]:
    """Find the cases below ``raw_dir``, in ``HGG`` and ``LGG`` or anywhere else.

    Args:
        raw_dir: the extracted download.
        source: one of those of ``--source``.
        channels: key of :data:`CHANNELS`.

    Raises:
        UserError: no such folder, no case in it, or both forms under ``auto``.
    """
    need_folder(raw_dir)
    collected = Collected(raw_dir, {})
    files = files_below(raw_dir, collected.findings)
    scans, h5 = named_like(files, _SCAN), named_like(files, _H5)
    source = choose_source(raw_dir, source, {"raw": bool(scans), "h5": bool(h5)}, _EXPECTED)
    if source == "h5":
        images = by_case(((match[1], path) for path, match in h5), collected.findings)
        collected.cases = {case: SourceFiles((path,), path) for case, path in images.items()}
        return collected, source
    kinds: dict[str, dict[str, Path]] = {}
    for kind in (*CHANNELS[channels], "seg"):
        found = ((match[1], path) for path, match in scans if match[2] == kind)
        kinds[kind] = by_case(found, collected.findings, f"{kind} file")
    _add_cases(collected, {match[1] for _, match in scans}, kinds)
    return collected, source


def _add_cases(collected: Collected, cases: set[str], kinds: dict[str, dict[str, Path]]) -> None:
    """Put every case with all its channels into ``collected``; the others are faults."""
    labels = kinds.pop("seg")
    for case in sorted(cases):
        missing = [kind for kind, paths in kinds.items() if case not in paths]
        if missing:
            collected.findings.faults.append(
                f"case {case}: has no {', '.join(missing)} file; extract it again"
            )
        else:
            images = tuple(paths[case] for paths in kinds.values())
            collected.cases[case] = SourceFiles(images, labels.get(case))
