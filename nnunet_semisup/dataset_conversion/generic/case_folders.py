"""Cases by the place of their files: a folder a case, or the Brain Imaging Data Structure (BIDS).

BIDS names the subject and the session in every file, ``sub-01_ses-2_T1w.nii.gz``, and keeps what
was drawn or computed in a tree of its own below ``derivatives``
(https://bids-specification.readthedocs.io, version 1.10).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.dataset_conversion.reading.formats import ending_of
from nnunet_semisup.preparation.raw import composed, is_junk

_ENTITIES = re.compile(r"(sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?)_.+")
_NOT_RAW = ("derivatives", "sourcedata", "code")
_SHOWN = 5


@dataclass
class _CaseFiles:
    """Hold the files of a case: one list a channel, and the labels; ``place`` is its folder."""

    place: Path
    channels: list[list[Path]]
    labels: list[Path] = field(default_factory=list)

    def shown(self, paths: Sequence[Path]) -> str:
        """Return the first few of the paths as text, without the case's folder."""
        names = [str(p.relative_to(self.place) if self.place.parts else p) for p in paths]
        return ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")


def is_bids(root: Path) -> bool:
    """Return whether a folder is the root of a BIDS tree."""
    return any(path.is_dir() for path in root.glob("sub-*"))


def list_case_folders(
    root: Path, image_globs: Sequence[str], label_glob: str, findings: Findings
) -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """Find cases that have a folder each, named after it, or those of a BIDS tree.

    Args:
        root: is searched at any depth. Folders of the same name in several others are told apart
            by the names of these.
        image_globs: pattern of the image's file name, one a channel; ``|`` separates alternatives.
            With folders in it (``anat/t1.nii.gz``), the case is the folder above them.
        label_glob: the same for the label. Where it ends in ``/*``, with or without an ending, the
            folder before it has one mask file a structure and is the label.
        findings: where to put what is wrong.

    Returns:
        The images and the labels by case.
    """
    bids = is_bids(root)
    cases: dict[tuple[str, Path], _CaseFiles] = {}
    for path in _image_files(root):
        label = _fitting(path, label_glob)
        if label is not None:
            folder = path.parent if _is_of_masks(label) else path
            known = _known(cases, path, label, bids, len(image_globs))
            known.labels += [] if folder in known.labels else [folder]
        if (label and _is_of_masks(label)) or (bids and is_derived(path, root)):
            continue
        for number, pattern in enumerate(image_globs):
            if glob := _fitting(path, pattern):
                _known(cases, path, glob, bids, len(image_globs)).channels[number].append(path)
    return _checked(
        cases if bids else _told_apart(cases, root, findings), image_globs, bids, findings
    )


def _image_files(root: Path) -> Iterator[Path]:
    for parent, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if ending_of(path) and not is_junk(path):
                yield path


def _fitting(path: Path, pattern: str) -> str | None:
    """Return the first alternative of a pattern that fits a path."""
    return next((glob for glob in pattern.split("|") if glob and path.match(glob)), None)


def _is_of_masks(glob: str) -> bool:
    """Return whether a pattern means all files of a folder."""
    return bool(re.search(r"/\*(\.[A-Za-z.]+)?$", glob))


def is_derived(path: Path, root: Path) -> bool:
    """Return whether a file of a BIDS tree is none of its raw data."""
    return path.relative_to(root).parts[0] in _NOT_RAW


def _known(
    cases: dict[tuple[str, Path], _CaseFiles], path: Path, glob: str, bids: bool, channels: int
) -> _CaseFiles:
    """Return what is known of a file's case, by its name and the folder that tells it apart."""
    place = path.parents[glob.count("/")]
    key = (composed(place.name), place)
    if bids and (match := _ENTITIES.fullmatch(path.name)):
        key = (match[1], Path())
    return cases.setdefault(key, _CaseFiles(key[1], [[] for _ in range(channels)]))


def _told_apart(
    cases: dict[tuple[str, Path], _CaseFiles], root: Path, findings: Findings
) -> dict[tuple[str, Path], _CaseFiles]:
    """Name cases by all folders above them where the last one has the same name for several.

    Such are the time points or series of patients who have a folder each.
    """
    names = [case for case, _ in cases]
    if len(set(names)) == len(names):
        return cases
    findings.warnings.append(
        f"several folders have the same name, such as {max(names, key=names.count)}; cases are "
        "named by the folders above it, too. If those are the patient, "
        "--group-regex '^(.+)_[^_]+$' keeps what is of one patient together"
    )
    return {
        (composed("_".join(place.relative_to(root).parts)) or case, place): files
        for (case, place), files in cases.items()
    }


def _checked(
    cases: dict[tuple[str, Path], _CaseFiles],
    globs: Sequence[str],
    bids: bool,
    findings: Findings,
) -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """Return the cases whose files can be told apart; what is wrong with others is a fault."""
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    for (case, _), files in cases.items():
        faults = _faults(files, globs)
        if case in images and not faults:
            first, second = images[case][0], files.channels[0][0]
            faults.append(f"is there twice, {first} and {second}; rename one of the folders")
        findings.faults += [f"case {case}: {fault}" for fault in faults]
        if not faults:
            images[case] = tuple(found[0] for found in files.channels)
            if files.labels:
                labels[case] = files.labels[0]
    sessions = [case for case in images if "_ses-" in case]
    if bids and len({case.split("_")[0] for case in sessions}) < len(sessions):
        findings.warnings.append(
            "some subjects have several sessions, each of which is a case; "
            "--group-regex '^(sub-[^_]+)' keeps those of a subject together"
        )
    return images, labels


def _faults(files: _CaseFiles, globs: Sequence[str]) -> list[str]:
    """Return why the files of one case cannot be told apart."""
    faults = []
    place = f"{files.place} " if files.place.parts else ""
    for glob, found in zip(globs, files.channels, strict=True):
        if len(found) != 1:
            advice = (
                "Make --image-glob narrower, or move the others away"
                if found
                else "Add it, or move the case away"
            )
            faults.append(
                f"{place}must have one file like '{glob}', it has: {files.shown(found) or 'none'}. "
                f"{advice}"
            )
    if len(files.labels) > 1:
        faults.append(
            f"{place}has several labels: {files.shown(files.labels)}. Make --label-glob narrower, "
            "or move the others away; one mask file a structure belongs in a folder in that of the "
            "case, for --label-glob 'FOLDER/*'"
        )
    both = {path for found in files.channels for path in found} & set(files.labels)
    if both:
        faults.append(
            f"{', '.join(str(p) for p in sorted(both))} fits --image-glob and --label-glob; make "
            "them narrower"
        )
    return faults
