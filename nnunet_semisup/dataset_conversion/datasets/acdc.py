"""ACDC, the Automated Cardiac Diagnosis Challenge: its NIfTI tree and the community's h5 volumes.

Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation
and Diagnosis: Is the Problem Solved?", IEEE Transactions on Medical Imaging 37, 2018.

A case is one of the two annotated frames of a patient. The published lists call the earlier one
``frame01`` and the later one ``frame02``, whatever their numbers in the film, and so does this
module; the report holds the real file names.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nnunet_semisup.dataset_conversion.cases import CaseFacts, DatasetForm, SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected, Prepared
from nnunet_semisup.dataset_conversion.offers import ACDC_SPACING, OFFERS
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
from nnunet_semisup.dataset_conversion.subsets import SplitLists, literature_split

_FRAME = r"(patient\d{3})_frame(\d+)(_gt)?\.nii(\.gz)?"
_H5 = r"(patient\d{3}_frame0[12])\.h5"
_FRAMES_A_PATIENT = 2
_LEAST_SLICE_DISTANCE = 5.0
_EXPECTED = (
    "'training/patient001/patient001_frame01.nii.gz' and the like, or 'patient001_frame01.h5' for "
    "the h5 form"
)
_LABELS: dict[str, int | tuple[int, ...]] = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
_REFERENCE = "Bernard et al., IEEE TMI 37, 2018, 2514-2525, doi:10.1109/TMI.2018.2837502"
_TERMS = "CC BY-NC-SA 4.0 according to mirrors of the data; the citation is mandatory."
_FRAME_NAMES = {
    "frame01": "the earlier of the two annotated frames",
    "frame02": "the later of the two annotated frames",
}


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Prepare the cases, their subsets and their form, as the command line asks for."""
    collected, source = collect(arguments.raw_dir, arguments.source)
    print(f"{arguments.raw_dir} has the form '{source}' ({len(collected.cases)} cases)")
    add_extra_unlabeled(
        collected, arguments.extra_unlabeled, lambda folder: collect(folder, source)[0]
    )
    present = (*collected.cases, *collected.unlabeled)
    split = choose_split(arguments, {"ssl4mis": published_split(present)}, "ssl4mis")
    if source == "h5":
        return Prepared(collected, split, h5_form(tuple(arguments.spacing)))
    return Prepared(collected, split, raw_form())


def published_split(present: Iterable[str] = ()) -> SplitLists:
    """Return the published lists, with the patients of all cases in them and of ``present``."""
    lists = literature_split("acdc")
    groups = {case: case.partition("_")[0] for case in (*lists.cases, *present)}
    return replace(lists, groups=groups)


def raw_form() -> DatasetForm:
    """Return the form of the challenge's own files, written with one consistent header."""
    return DatasetForm(
        name=OFFERS["acdc"].name,
        source="raw",
        channel_names={0: "cineMRI"},
        labels=dict(_LABELS),
        label_map={value: value for value in range(4)},
        read_image=read_itk,
        read_label=read_itk,
        description=(
            "Right ventricle, myocardium and left ventricle in cine MR, two frames a patient. The "
            "original headers contradict themselves; voxel size and position are those of the "
            "qform."
        ),
        reference=_REFERENCE,
        licence=_TERMS,
        check=_check_raw,
        assumptions=dict(_FRAME_NAMES),
    )


def h5_form(spacing: tuple[float, ...] = ACDC_SPACING) -> DatasetForm:
    """Return the form of the literature's h5 volumes: axes z, y, x, no geometry.

    Args:
        spacing: voxel size in millimetres to assume along x, y and z.

    Raises:
        UserError: the spacing is not positive, or h5py is not installed.
    """
    shown = " x ".join(f"{step:g}" for step in spacing)
    return h5_variant(
        raw_form(),
        spacing,
        description=(
            "Right ventricle, myocardium and left ventricle in cine MR, from the h5 volumes of the "
            "semi-supervised literature: scaled to [0, 1] by their authors. The voxel size is "
            f"assumed ({shown} mm) and differs between patients in reality, so distances in mm do "
            "not compare with those on the challenge's own files."
        ),
        axes="zyx",
        check=_check_structures,
    )


def _check_raw(facts: CaseFacts) -> list[str]:
    """Find small slice distances, which betray the sform: it has a unit scale."""
    distance = facts.geometry.spacing[2] if facts.geometry else 0.0
    if distance < _LEAST_SLICE_DISTANCE:
        return [
            f"the slice distance is {distance:g} mm; the challenge's scans have "
            f"{_LEAST_SLICE_DISTANCE:g} mm or more, so the voxel size was lost when the file was "
            "saved. Take the original files"
        ]
    return _check_structures(facts)


def _check_structures(facts: CaseFacts) -> list[str]:
    """Warn where one of the three structures is not there, as all normally are."""
    if facts.label is not None:
        missing = [name for name, value in _LABELS.items() if value not in facts.label_counts]
        if missing and any(facts.label_counts.keys() - {0}):
            facts.warnings.append(f"the label has no {', '.join(missing)}")
    return []


def collect(raw_dir: Path, source: str = "auto") -> tuple[Collected, str]:
    """Find the annotated frames below ``raw_dir``, or the h5 volumes.

    Args:
        raw_dir: the extracted download.
        source: one of those of ``--source``.

    Raises:
        UserError: no such folder, no case in it, or both forms under ``auto``.
    """
    need_folder(raw_dir)
    collected = Collected(raw_dir, {})
    files = files_below(raw_dir, collected.findings)
    frames, h5 = named_like(files, _FRAME), named_like(files, _H5)
    source = choose_source(raw_dir, source, {"raw": bool(frames), "h5": bool(h5)}, _EXPECTED)
    if source == "h5":
        images = by_case(((match[1], path) for path, match in h5), collected.findings)
        collected.cases = {case: SourceFiles((path,), path) for case, path in images.items()}
        return collected, source
    _collect_frames(collected, frames)
    _compare_with_info(collected, files)
    return collected, source


def _collect_frames(collected: Collected, frames: list[tuple[Path, re.Match[str]]]) -> None:
    """Collect two frames a patient, renamed to frame01 and frame02."""
    named = [(f"{match[1]}_frame{int(match[2]):02d}", match[3], path) for path, match in frames]
    findings = collected.findings
    images = by_case(((name, path) for name, gt, path in named if not gt), findings, "image")
    labels = by_case(((name, path) for name, gt, path in named if gt), findings, "label")
    by_patient: dict[str, list[str]] = {}
    for name in sorted({*images, *labels}):
        by_patient.setdefault(name.partition("_")[0], []).append(name)
        if name not in images:
            findings.faults.append(
                f"{labels[name]} has no image beside it; extract the patient again"
            )
    for patient, names in by_patient.items():
        if len(names) != _FRAMES_A_PATIENT:
            findings.faults.append(
                f"{patient}: has {len(names)} frames ({', '.join(names)}); two are annotated. "
                "Extract the patient again, and keep no others"
            )
            continue
        for new, name in zip(_FRAME_NAMES, names, strict=True):
            if name in images:
                files = SourceFiles((images[name],), labels.get(name))
                collected.cases[f"{patient}_{new}"] = files


def _compare_with_info(collected: Collected, files: list[Path]) -> None:
    """Compare with ``Info.cfg``, which names the frames of end diastole and end systole."""
    infos = {path.parent: path for path in files if path.name.lower() == "info.cfg"}
    without = set()
    by_folder: dict[Path, list[Path]] = {}
    for case in collected.cases.values():
        by_folder.setdefault(case.images[0].parent, []).append(case.images[0])
    for folder, images in by_folder.items():
        if folder not in infos:
            without.add(folder.name)
            continue
        text = infos[folder].read_text(encoding="utf-8", errors="replace")
        stated = {int(n) for n in re.findall(r"^\s*E[DS]\s*:\s*(\d+)", text, re.MULTILINE)}
        numbers = {int(re.findall(r"_frame(\d+)", image.name)[0]) for image in images}
        if stated != numbers:
            collected.findings.faults.append(
                f"{folder.name}: {infos[folder]} names the frames {sorted(stated)}, but there are "
                f"{sorted(numbers)}; extract the patient again"
            )
    if without:
        collected.findings.warnings.append(
            f"{len(without)} patients have no Info.cfg, so their frames were not compared with it"
        )
