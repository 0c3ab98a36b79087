"""Bring annotated scans from ``imagesUn`` to ``imagesTr``, after every check of ``verify``.

All moves are written down before the first one. A command that was killed in between finishes them
at its next start: each is done, or is still to be done.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.atomic import atomic_path, link_or_copy
from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.dataset_conversion.findings import Findings
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import CONVERSION_REPORT, IMAGES_UNLABELED, SPLITS_FILE
from nnunet_semisup.preparation.lock import exclusive_lock
from nnunet_semisup.preparation.raw import (
    DatasetFolders,
    in_order,
    is_junk,
    list_images,
    read_dataset_json,
)
from nnunet_semisup.preparation.rules import STRICT, Accepted

JOURNAL = ".newly_labeled.json"
"""In the raw folder while files are moved: what is moved where, and the new ``dataset.json``."""
_TAKEN = "imagesTr", "labelsTr", "imagesTs", "labelsTs"


@dataclass(frozen=True)
class Moved:
    """Hold the cases that were moved, and what ``verify`` warns of."""

    cases: tuple[str, ...]
    warnings: tuple[str, ...]


def move_to_labeled(
    folders: DatasetFolders, masks: Path, num_processes: int = 1, accepted: Accepted = STRICT
) -> Moved:
    """Move the images of annotated cases to ``imagesTr`` and copy their masks to ``labelsTr``.

    The data set as it would be is checked as a whole: masks against images, labels, names, copies
    among labeled and test cases, spacings.

    Args:
        folders: of the data set.
        masks: folder with a file ``CASE<ending>`` for each annotated case of ``imagesUn``.
        num_processes: processes that read files.
        accepted: by the user, though it is a fault otherwise.

    Raises:
        UserError: something is wrong; all faults at once, and nothing was moved.
    """
    with exclusive_lock(folders.raw):
        if (folders.raw / JOURNAL).is_file():
            return Moved(_carry_out(folders.raw), ())
        content = read_dataset_json(folders.raw)
        annotated = _annotated(folders, masks, content)
        with tempfile.TemporaryDirectory(dir=folders.raw.parent, prefix=".verify_") as scratch:
            stage = Path(scratch) / folders.name
            new = _stage(folders.raw, stage, annotated, content)
            verified = verify_dataset(
                DatasetFolders(folders.name, stage, folders.preprocessed), num_processes, accepted
            )
        faults = [text.replace(str(stage), str(folders.raw)) for text in verified.findings.faults]
        Findings(faults).raise_faults(f"{folders.raw} with the new labels would have", _NOTHING)
        _write_journal(folders.raw, annotated, new)
        told = [text for text in verified.findings.warnings if "no unlabeled case" not in text]
        return Moved(_carry_out(folders.raw), tuple(told))


_NOTHING = ", nothing was moved"


@dataclass(frozen=True)
class _Annotated:
    """Hold the files of one case: images by channel, side files, and the mask with its own."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]


def _annotated(
    folders: DatasetFolders, masks: Path, content: dict[str, Any]
) -> dict[str, _Annotated]:
    """Return the annotated cases by name.

    Raises:
        UserError: the folder has no mask, or masks of cases that are not in ``imagesUn``.
    """
    if "dataset" in content:
        raise UserError(
            f"{folders.raw / 'dataset.json'} lists its cases under 'dataset'; add the new ones "
            "there yourself, since their files may lie anywhere."
        )
    if not masks.is_dir():
        raise UserError(f"--moved-to-labeled {masks} is not a folder. Give that of the masks.")
    ending = content["file_ending"]
    listed = list_images(folders.raw / IMAGES_UNLABELED, ending)
    found = {p.name.removesuffix(ending): p for p in masks.glob(f"*{ending}") if not is_junk(p)}
    if not found:
        raise UserError(f"--moved-to-labeled {masks} has no mask <case>{ending}.")
    unknown = sorted(found.keys() - listed.cases.keys())
    if unknown:
        raise UserError(
            f"--moved-to-labeled {masks} has masks of cases that are not in {IMAGES_UNLABELED}: "
            f"{', '.join(unknown)}. Name each as its scan, without the channel; nothing was moved."
        )
    annotated = {}
    for case, mask in sorted(found.items()):
        side = [listed.side_files[case]] if case in listed.side_files else []
        own = [path for path in (mask.with_suffix(".json"),) if side and path.is_file()]
        images = (*in_order(listed.cases[case]), *side)
        annotated[case] = _Annotated(images, (mask, *own))
    return annotated


def _stage(
    raw: Path, stage: Path, annotated: dict[str, _Annotated], content: dict[str, Any]
) -> dict[str, Any]:
    """Make the data set as it would be, of links, and return its ``dataset.json``."""
    for name in _TAKEN:
        if (raw / name).is_dir():
            _link_all(sorted((raw / name).iterdir()), stage / name)
    for files in annotated.values():
        _link_all(files.images, stage / "imagesTr")
        _link_all(files.masks, stage / "labelsTr")
    new = {**content, "numTraining": content["numTraining"] + len(annotated)}
    if "num_unlabeled" in content.get("semisup", {}):
        left = content["semisup"]["num_unlabeled"] - len(annotated)
        new["semisup"] = {**content["semisup"], "num_unlabeled": left}
    text = json.dumps({key: value for key, value in new.items() if key != "semisup"})
    (stage / "dataset.json").write_text(text, encoding="utf-8")
    _link_all([raw / CONVERSION_REPORT, raw / SPLITS_FILE], stage)
    return new


def _link_all(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.is_file():
            link_or_copy(file, folder / file.name)


def _write_journal(raw: Path, annotated: dict[str, _Annotated], new: dict[str, Any]) -> None:
    """Copy the masks under hidden names, then write down what is to be done.

    Raises:
        UserError: a folder cannot be written to.
    """
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(exist_ok=True)
    folders = (raw, raw / IMAGES_UNLABELED, raw / "imagesTr", raw / "labelsTr")
    if closed := [str(folder) for folder in folders if not os.access(folder, os.W_OK)]:
        raise UserError(f"{', '.join(closed)} cannot be written to; nothing was moved.")
    moves = []
    for files in annotated.values():
        for mask in files.masks:
            hidden = raw / "labelsTr" / f".new_{mask.name}"
            shutil.copyfile(mask, hidden)
            moves.append([str(hidden.relative_to(raw)), f"labelsTr/{mask.name}"])
        moves += [[f"{IMAGES_UNLABELED}/{p.name}", f"imagesTr/{p.name}"] for p in files.images]
    journal = {"cases": sorted(annotated), "moves": moves, "dataset.json": new}
    with atomic_path(raw / JOURNAL) as temporary:
        temporary.write_text(json.dumps(journal, indent=1), encoding="utf-8")


def _move(source: Path, target: Path) -> None:
    """Move a file; to another disk as a copy, which is whole before the source goes."""
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()


def _carry_out(raw: Path) -> tuple[str, ...]:
    """Do what the journal says and is not done yet, and remove it."""
    journal = json.loads((raw / JOURNAL).read_text(encoding="utf-8"))
    for source, target in journal["moves"]:
        if (raw / source).exists():
            _move(raw / source, raw / target)
    with atomic_path(raw / "dataset.json") as temporary:
        text = json.dumps(journal["dataset.json"], indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    (raw / JOURNAL).unlink()
    return tuple(journal["cases"])


def next_steps(folders: DatasetFolders, cases: Sequence[str]) -> str:
    """Return what is left to do for a training to learn from cases that were moved."""
    number = folders.name[7:10]
    own = [f for f in (folders.raw, folders.preprocessed) if (f / SPLITS_FILE).is_file()]
    lines = [
        f"In imagesTr and labelsTr now: {', '.join(cases)}",
        f"Plan and preprocess anew: nnUNetv2_semisup_plan_and_preprocess -d {number} --clean "
        "-c CONFIGURATION",
    ]
    if own:
        files = " and ".join(str(folder / SPLITS_FILE) for folder in own)
        lines.insert(
            1,
            f"Add them to 'train' of the folds in {files}, or remove that file if nnU-Net made it; "
            "without that they are not trained on.",
        )
    return "\n".join(lines)
