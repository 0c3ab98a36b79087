"""Every command's own functions on one file: what it takes the file for, or why it refuses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from skimage import io

from nnunet_semisup.dataset_conversion.cases import Case, DatasetForm, Subset
from nnunet_semisup.dataset_conversion.checking.one_case import inspect_case
from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.dataset_conversion.generic.converter import _kind, read_any_image
from nnunet_semisup.dataset_conversion.reading.formats import read_label
from nnunet_semisup.dataset_conversion.reading.scans import TrustingAffine
from nnunet_semisup.dataset_conversion.writing.dataset_writer import write_cases
from nnunet_semisup.errors import UserError
from nnunet_semisup.evaluation.evaluate import evaluate_inputs
from nnunet_semisup.evaluation.inputs import find_inputs
from nnunet_semisup.preparation.raw import DatasetFolders
from nnunet_semisup.preparation.unlabeled_images import check_dataset
from tests.formats.row import Row
from tests.formats.standard import read_nifti

CASE = "unl_000"


@dataclass(frozen=True)
class Outcome:
    """``fault`` is empty where the command read the file; what it then has is as in :class:`Row`.

    Attributes:
        fault: the whole message.
        values: ``(z, y, x)``; of an evaluation the reference's.
        spacing: along x, y, z in mm.
        direction: columns are the axes in LPS; ``None`` where it is not told.
        hd95: of an evaluation of two boxes that lie one voxel apart along x.
    """

    fault: str = ""
    values: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None
    direction: np.ndarray | None = None
    hd95: float | None = None


def convert(row: Row, folder: Path) -> Outcome:
    """Read, check and write one unlabeled image, and read by the standard what was written."""
    source, target = folder / f"p1{row.ending}", folder / "converted"
    row.write(source, row.image())
    _, ending, ready = _kind([source], linked=False)
    readers = (read_any_image, read_label)
    if row.trust_affine:
        readers = (TrustingAffine(read_any_image), TrustingAffine(read_label))
    form = DatasetForm(
        "X", "files", {0: "a"}, {"background": 0, "box": 1}, {0: 0, 1: 1}, *readers, "", "", "",
        images_ready=ready, file_ending=ending, dimensions=2 if row.is_picture else 3,
        components=row.channels if row.channels > 1 else _components(row),
    )  # fmt: skip
    facts = inspect_case(Case("p1", Subset.UNLABELED, (source,), None), form)
    if facts.faults:
        return Outcome("\n".join(facts.faults))
    target.mkdir()
    write_cases([facts], form, target, 1)
    written = target / "imagesUn" / f"p1_0000{ending}"
    if ending == ".nii.gz":
        found = read_nifti(written)
        return Outcome("", found.values, found.spacing, found.direction)
    return Outcome("", np.asarray(io.imread(written)), (1, 1), np.eye(2))


def _components(row: Row) -> int:
    """Values a pixel of what is shown: palettes have colours."""
    shown = row.values(row.image())
    return shown.shape[-1] if shown.ndim > len(row.shape) else 1


def raw_dataset(row: Row, plain: Row, root: Path, intact: bool = False) -> DatasetFolders:
    """A labeled case of a plain kind, and an unlabeled one that is the row's file.

    With ``intact`` that is plain, too.
    """
    raw = root / "Dataset501_X"
    for name in ("imagesTr", "labelsTr", "imagesUn"):
        (raw / name).mkdir(parents=True)
    colours = _components(row)
    plain_image = plain.image(1) if colours == 1 else np.stack([plain.image(1)] * colours, -1)
    plain.write(raw / "imagesTr" / f"lab_000_0000{row.ending}", plain_image)
    plain.write(raw / "labelsTr" / f"lab_000{row.ending}", plain.label())
    unlabeled = raw / "imagesUn" / f"{CASE}_0000{row.ending}"
    if intact:
        plain.write(unlabeled, plain.image(2))
    else:
        row.write(unlabeled, row.image())
    content = {
        "channel_names": {str(i): "a" for i in range(colours)},
        "labels": {"background": 0, "box": 1},
        "numTraining": 1,
        "file_ending": row.ending,
    }
    if row.reader:
        content["overwrite_image_reader_writer"] = row.reader
    (raw / "dataset.json").write_text(json.dumps(content))
    for path in raw.glob("*/*_0000.json"):
        path.unlink()
    return DatasetFolders(raw.name, raw, root / "preprocessed")


def verify(row: Row, plain: Row, root: Path) -> Outcome:
    """Check a raw data set; what nnU-Net reads of a file that passes."""
    folders = raw_dataset(row, plain, root)
    place = "nnunet_semisup.dataset_conversion"
    with (
        mock.patch(f"{place}.checking.all_cases.near_duplicates", return_value=[]),
        mock.patch(f"{place}.checking.raw_dataset._faults_by_nnunet", return_value=[]),
    ):
        faults = verify_dataset(folders).findings.faults
    return Outcome("\n".join(faults)) if faults else nnunet_reads(row, folders)


def preprocess(row: Row, plain: Row, root: Path) -> Outcome:
    """Do the checks of planning and preprocessing; what nnU-Net reads of a file that passes."""
    folders = raw_dataset(row, plain, root)
    try:
        check_dataset(folders, show_progress=False)
    except UserError as error:
        return Outcome(str(error))
    return nnunet_reads(row, folders)


def nnunet_reads(row: Row, folders: DatasetFolders) -> Outcome:
    """What nnU-Net's reader gives to its preprocessing."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    content = json.loads((folders.raw / "dataset.json").read_text())
    example = str(next((folders.raw / "imagesTr").iterdir()))
    reader = determine_reader_writer_from_dataset_json(content, example, verbose=False)
    path = folders.raw / "imagesUn" / f"{CASE}_0000{row.ending}"
    array, properties = reader().read_images([str(path)])
    values = array[0] if not row.is_picture else np.moveaxis(array[:, 0], 0, -1).squeeze()
    spacing = tuple(properties["spacing"])[::-1]
    direction = None
    if "sitk_stuff" in properties:
        direction = np.reshape(properties["sitk_stuff"]["direction"], (3, 3))
    return Outcome("", values, spacing[:2] if row.is_picture else spacing, direction)


def evaluate(row: Row, folder: Path) -> Outcome:
    """Compare two boxes one voxel apart, both in files of this kind."""
    reference, prediction = folder / "reference", folder / "prediction"
    for place, shift in ((reference, 0), (prediction, 1)):
        place.mkdir()
        row.write(place / f"p1{row.ending}", row.label(shift))
    content = {
        "channel_names": {"0": "a"}, "labels": {"background": 0, "box": 1},
        "file_ending": row.ending,
    }  # fmt: skip
    if row.reader:
        content["overwrite_image_reader_writer"] = row.reader
    (prediction / "dataset.json").write_text(json.dumps(content))
    inputs = find_inputs(reference, prediction, trust_affine=row.trust_affine)
    try:
        case = evaluate_inputs(inputs).cases[0]
    except UserError as error:
        return Outcome(str(error))
    return Outcome(spacing=case.spacing[::-1], hd95=case.classes["box"].values["HD95"])


def outcomes(row: Row, plain: Row, root: Path) -> dict[str, Outcome]:
    """What every command that can have such a file does with it."""
    runs: dict[str, Callable[[Path], Outcome]] = {"convert": partial(convert, row)}
    if row.by_nnunet:
        runs["verify"] = partial(verify, row, plain)
        runs["preprocess"] = partial(preprocess, row, plain)
    if row.by_nnunet and row.labels:
        runs["evaluate"] = partial(evaluate, row)
    found = {}
    for name, run in runs.items():
        (root / name).mkdir()
        found[name] = run(root / name)
    return found
