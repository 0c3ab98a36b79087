"""Write verified cases in nnU-Net's raw format, atomically and so that a restart continues."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.cases import Case, CaseFacts, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from nnunet_semisup.dataset_conversion.subsets import Split
from nnunet_semisup.dataset_conversion.volume import Volume, array_sha256, oriented
from nnunet_semisup.dataset_conversion.writing.volume_files import (
    holds_written,
    write_text,
    write_volume,
)
from nnunet_semisup.errors import UserError
from nnunet_semisup.parallel import map_cases


def output_paths(case: Case, ending: str) -> tuple[list[str], str | None]:
    """Return where channels and label of ``case`` go, relative to the data set's folder."""
    images = [
        f"{case.subset.image_folder}/{case.id}_{channel:04d}{ending}"
        for channel in range(len(case.images))
    ]
    label = f"{case.subset.label_folder}/{case.id}{ending}" if case.label else None
    return images, label


def map_labels(array: np.ndarray, label_map: Mapping[int, int]) -> np.ndarray:
    """Replace the source's label values; the result is uint8 of the same shape.

    Values that are not in ``label_map`` must have been refused before.
    """
    mapped = np.zeros(array.shape, dtype=np.uint8)
    for source, target in label_map.items():
        if target:
            mapped[array == source] = target
    return mapped


def write_case(facts: CaseFacts, form: DatasetForm, folder: Path, link: str = "copy") -> None:
    """Write one verified case below ``folder``; files that are complete already are kept.

    Every file is read back and compared with its source before it counts as written: by its bytes
    where it is the source itself or a copy, else by its voxels.

    Args:
        facts: the case, as verified.
        form: how to read it and what its labels become.
        folder: the data set's folder.
        link: for images that need no conversion: ``copy``, ``hardlink`` or ``symlink``.

    Raises:
        UserError: a source changed after it was verified, or the disk returned other voxels.
    """
    case = facts.case
    image_names, label_name = output_paths(case, form.file_ending)
    assert facts.geometry is not None
    for path, name, file in zip(case.images, image_names, facts.images, strict=True):
        if form.images_ready and not file.repaired and not facts.turned_to:
            _place_and_compare(path, folder / name, file.sha256, link)
            continue
        volume = form.read_image(path)
        _check_unchanged(path, volume.array, file.voxels_sha256)
        _write_and_read_back(_turned(volume, facts), folder / name)
    if label_name is not None and facts.label is not None and facts.meaning is not None:
        label = form.read_label(facts.label.path)
        _check_unchanged(facts.label.path, label.array, facts.label.voxels_sha256)
        mapped = Volume(map_labels(label.array, facts.meaning.label_map), facts.geometry)
        _write_and_read_back(_turned(mapped, facts), folder / label_name)


def _turned(volume: Volume, facts: CaseFacts) -> Volume:
    """Return the volume with the axes that the case shall have."""
    return oriented(volume, facts.turned_to) if facts.turned_to else volume


def _check_unchanged(path: Path, array: np.ndarray, expected: str) -> None:
    if array_sha256(array) != expected:
        raise _changed(path)


def _changed(path: Path) -> UserError:
    return UserError(f"{path} changed while it was converted; run the same command again.")


def _not_as_written(path: Path) -> UserError:
    return UserError(f"{path} does not read back as it was written; check the disk.")


def _write_and_read_back(volume: Volume, path: Path) -> None:
    """Leave ``path`` with exactly ``volume``, writing only if it is not there already."""
    if path.exists() and holds_written(path, volume):
        return
    write_volume(volume, path)
    if not holds_written(path, volume):
        raise _not_as_written(path)


def _place_and_compare(source: Path, path: Path, digest: str, link: str) -> None:
    """Leave ``path`` as a copy of or a link to ``source``, whose bytes were verified.

    Equal bytes are equal voxels, so nothing is decompressed a second time.
    """
    if path.exists() and source_sha256(path) == digest:
        return
    _place(source, path, link)
    if source_sha256(path) != digest:
        raise _not_as_written(path) if source_sha256(source) == digest else _changed(source)


def _place(source: Path, path: Path, link: str) -> None:
    """Copy or link ``source`` to ``path`` atomically."""
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    source = source.resolve()
    try:
        if link == "symlink":
            temporary.symlink_to(source)
        elif link == "hardlink":
            temporary.hardlink_to(source)
        else:
            shutil.copyfile(source, temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written by --link {link} ({error}); --link copy always works."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_cases(
    facts: Sequence[CaseFacts],
    form: DatasetForm,
    folder: Path,
    num_processes: int,
    link: str = "copy",
) -> None:
    """Write all cases, one a worker at a time; see :func:`write_case`."""
    for name in sorted({sub for f in facts for sub in _folders(f.case)}):
        (folder / name).mkdir(exist_ok=True)
    light = [replace(f, thumbnail=None) for f in facts]
    write = partial(write_case, form=form, folder=folder, link=link)
    map_cases(write, light, [f.case.id for f in facts], num_processes, "writing")


def _folders(case: Case) -> Iterable[str]:
    yield case.subset.image_folder
    if case.label:
        yield case.subset.label_folder


def write_dataset_json(
    folder: Path, form: DatasetForm, split: Split, facts: Sequence[CaseFacts]
) -> None:
    """Write ``dataset.json`` through nnU-Net and, with a validation list, ``splits_final.json``."""
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    present = {f.case.id: f.case.subset for f in facts}
    count = {s: sum(value is s for value in present.values()) for s in Subset}
    labeled = [case for case in split.labeled if case in present]
    validation = [case for case in split.lists.validation if case in present]
    if validation:
        fold = {"train": labeled, "val": validation}
        write_text(json.dumps([fold], indent=2) + "\n", folder / "splits_final.json")
    with tempfile.TemporaryDirectory() as scratch:
        generate_dataset_json(
            scratch,
            channel_names={str(key): value for key, value in form.channel_names.items()},
            labels=dict(form.labels),
            regions_class_order=form.regions_class_order,
            num_training_cases=count[Subset.LABELED] + count[Subset.VALIDATION],
            file_ending=form.file_ending,
            dataset_name=form.name,
            reference=form.reference,
            description=form.description,
            license=form.licence,
            converted_by="nnunet-semisup",
            source=form.source,
            semisup={
                "unlabeled_folder": Subset.UNLABELED.image_folder,
                "num_unlabeled": count[Subset.UNLABELED],
                "labeled_order": labeled,
                "label_fraction": split.label_fraction,
                "split": f"{split.lists.name}@{split.lists.sha256}",
                "source": form.source,
                "source_checksums": "conversion_report.json",
            },
        )
        content = (Path(scratch) / "dataset.json").read_text(encoding="utf-8")
    write_text(content, folder / "dataset.json")
