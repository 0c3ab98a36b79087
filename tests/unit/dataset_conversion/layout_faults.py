"""Folders in layouts and with DICOM files that cannot be converted as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from tests.unit.dataset_conversion.trees_dicom import (
    write_object,
    write_picture,
    write_seg,
    write_series,
)
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    SHAPE,
    UNLABELED,
    WHAT,
    Folders,
    make_folders,
    mask,
    scan,
    write,
)

DICOM_SHAPE = (6, 20, 24)
DICOM_SPACING = (0.7, 0.8, 1.0)
ORGANS = ("kidney_left", "liver", "spleen")
SERIES = ("--images", "scans", "--labels", "masks", *WHAT)
GLOBS = ("--image-glob", "ct.nii.gz", "--label-glob", "segmentations/*", "--channel-names", "CT")
T1 = ("--image-glob", "*_T1w.nii.gz", "--label-glob", "*_seg.nii.gz", *WHAT)


def hounsfield(number: int) -> np.ndarray:
    random = np.random.default_rng(number)
    return random.integers(-900, 900, DICOM_SHAPE).astype(np.int16)


def make_series(root: Path, labels: bool = True) -> Folders:
    """Three patients with a DICOM series each, labels as NIfTI for the first two."""
    for number in range(1, 4):
        write_series(root / f"scans/P{number}", hounsfield(number), f"P{number}")
        if labels and number < 3:
            path = root / f"masks/P{number}.nii.gz"
            write(mask(number, shape=DICOM_SHAPE), path, DICOM_SPACING)
    return Folders(root)


def make_segs(root: Path, elsewhere: bool = False, overlap: bool = False) -> Folders:
    """The same with DICOM SEG of two segments, on another grid or overlapping where asked for."""
    made = make_series(root, labels=False)
    for number in (1, 2):
        label = mask(number, shape=DICOM_SHAPE)
        label[2, 1:3, 1:3] = 2
        files = sorted((root / f"scans/P{number}").iterdir())
        if elsewhere and number == 1:
            place = root.with_name("other")
            files = write_series(place, hounsfield(9), "P1", spacing=(0.9, 0.8, 1.0))
        if overlap and number == 1:
            label = np.stack([label == 1, label > 0], axis=-1)
        write_seg(root / f"masks/P{number}.dcm", files, label, ("organ", "vein"))
    return made


def make_empty(root: Path) -> Folders:
    root.mkdir(parents=True)
    return Folders(root)


def organs(number: int) -> np.ndarray:
    """Boxes that do not overlap."""
    label = np.zeros(SHAPE, np.uint8)
    for value in (1, 2, 3):
        label[1:5, 4 : 7 + number, 6 * value : 6 * value + 4] = value
    return label


def make_masks(
    root: Path, image: str = "{}/ct.nii.gz", folder: str = "{}/segmentations"
) -> Folders:
    """Cases of TotalSegmentator's data set: one mask file a structure, 0 or 1."""
    for number, case in enumerate(LABELED + UNLABELED):
        write(scan(number), root / image.format(case))
        for value, name in enumerate(ORGANS, 1):
            if case in LABELED:
                path = root / folder.format(case) / f"{name}.nii.gz"
                write((organs(number) == value).astype(np.uint8), path)
    return Folders(root)


def make_bids(
    root: Path, label: str = "derivatives/manual/{0}/anat/{0}_T1w_seg.nii.gz", session: str = ""
) -> Folders:
    """Two raw scans a subject, one that was computed from them, and labels for three."""
    for number in range(5):
        subject = f"sub-{number:02d}"
        name = subject + (f"_{session}" if session else "")
        write(scan(number), root / subject / session / f"anat/{name}_T1w.nii.gz")
        write(scan(number + 9), root / subject / session / f"anat/{name}_T2w.nii.gz")
        preprocessed = root / f"derivatives/fmriprep/{subject}/anat/{name}_desc-preproc_T1w.nii.gz"
        write(scan(number + 20), preprocessed)
        if number < 3:
            write(mask(number), root / label.format(subject, name))
    return Folders(root)


def channels(number: int, count: int = 2) -> np.ndarray:
    """Voxels ``(x, y, z, channel)``, different in every channel."""
    return np.random.default_rng(number).integers(0, 3000, (9, 8, 7, count)).astype(np.int16)


def save_nifti(array: np.ndarray, path: Path, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def make_decathlon(
    root: Path,
    modality: dict[str, str],
    counts: Sequence[int] = (2, 2, 2, 2, 2),
    affine: np.ndarray | None = None,
) -> Folders:
    """A task of the Decathlon with several channels in a file."""
    for number, count in enumerate(counts):
        image = root / ("imagesTr" if number < 3 else "imagesTs") / f"p_{number}.nii.gz"
        save_nifti(channels(number, count), image, affine)
        if number < 3:
            label = np.zeros((9, 8, 7), np.uint8)
            label[2:5, 2 : 4 + number, 1:4] = 1
            save_nifti(label, root / f"labelsTr/p_{number}.nii.gz", affine)
    labels = {"0": "background", "1": "PZ"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels}))
    return Folders(root)


def write_frames(path: Path) -> None:
    """Several slices in one file."""
    image = SimpleITK.GetImageFromArray(np.abs(hounsfield(7)).astype(np.uint16))
    image.SetMetaData("0008|0016", "1.2.840.10008.5.1.4.1.1.7.3")
    SimpleITK.WriteImage(image, str(path))


def tilted(root: Path) -> None:
    changes = {i: {"0020|0032": f"-5\\{6 + i / 5}\\{40 + i}"} for i in range(DICOM_SHAPE[0])}
    write_series(root / "scans/P3", hounsfield(3), "P3", changes=changes)


def radiographs(root: Path) -> None:
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (60, 72))
        write_picture(root / f"scans/X{number}.dcm", "DX", pixels, f"X{number}")
        if number < 2:
            write(mask(number, shape=(60, 72)), root / f"masks/X{number}.png")


def link_to_labeled(folders: Folders) -> None:
    (folders.root / "more").mkdir()
    (folders.root / "more/p1.nii.gz").symlink_to(folders.image("p1"))
    write(scan(40), folders.root / "more/p9.nii.gz")


def with_prefixes(folders: Folders) -> None:
    """LiTS names its files volume-0.nii and segmentation-0.nii."""
    for folder, prefix in ((folders.images, "volume-"), (folders.labels, "segmentation-")):
        for path in list(folder.iterdir()):
            path.rename(path.with_name(prefix + path.name))


def files_of(folders: Folders) -> list[Path]:
    return sorted(folders.labels.iterdir())


def side_by_side(folders: Folders) -> None:
    for path in files_of(folders):
        path.rename(folders.root / path.name.replace(".", "_seg.", 1))
    for path in sorted(folders.images.iterdir()):
        path.rename(folders.root / path.name)
    folders.images.rmdir()
    folders.labels.rmdir()


def by_structure(folders: Folders) -> None:
    for path in sorted(folders.labels.rglob("*.nii.gz")):
        target = folders.labels / path.name.removesuffix(".nii.gz") / f"{path.parent.name}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for case in LABELED:
        (folders.labels / case).rmdir()


@dataclass(frozen=True)
class LayoutFault:
    """A tree, what is wrong with it, and the options of the command."""

    make: Callable[[Path], Folders]
    spoil: Callable[[Folders], object]
    message: str
    options: tuple[str, ...] = SERIES


def nothing(_: Folders) -> None:
    pass


FAULTS = {
    "radiographs": LayoutFault(
        make_empty, lambda d: radiographs(d.root), "4 radiographs or other single pictures ("
    ),
    "contours as labels": LayoutFault(
        lambda root: make_series(root, labels=False),
        lambda d: [
            write_object(d.root / f"masks/P{i}/RS.dcm", "RTSTRUCT", f"P{i}") for i in (1, 2)
        ],
        "has 2 RTSTRUCT (contours): ",
    ),
    "contours without a scan": LayoutFault(
        make_series,
        lambda d: write_object(d.root / "scans/P9/RS.dcm", "RTSTRUCT", "P9"),
        "without a series of slices beside them, 1 RTSTRUCT (contours): ",
    ),
    "report without a scan": LayoutFault(
        make_series,
        lambda d: write_object(d.root / "scans/P9/SR.dcm", "SR", "P9"),
        "without a series of slices beside them, 1 reports (SR): ",
    ),
    "several frames in a DICOM file": LayoutFault(
        make_series,
        lambda d: write_frames(d.root / "scans/P1/many.dcm"),
        "holds 6 frames in one file; convert all scans to NIfTI first",
    ),
    "tilted DICOM series": LayoutFault(
        make_series, lambda d: tilted(d.root), "shifted sideways by up to 1 mm (a tilted gantry)"
    ),
    "lost DICOM slice": LayoutFault(
        make_series,
        lambda d: (d.root / "scans/P1/1-003.dcm").unlink(),
        "so slices are missing (instance numbers 3). Download or extract the series again",
    ),
    "two DICOM series of a case": LayoutFault(
        make_series,
        lambda d: write_series(d.root / "scans/P1/later", hounsfield(9), "P1b"),
        "case P1: has 2 DICOM series (",
    ),
    "DICOM SEG on another grid": LayoutFault(
        lambda root: make_segs(root, elsewhere=True),
        nothing,
        "the DICOM SEG does not lie on the grid of the image",
        (*SERIES[:4], "--channel-names", "CT"),
    ),
    "DICOM SEG with segments that overlap": LayoutFault(
        lambda root: make_segs(root, overlap=True),
        nothing,
        "its segments overlap, and a voxel has one label in nnU-Net",
        (*SERIES[:4], "--channel-names", "CT"),
    ),
    "masks that overlap": LayoutFault(
        make_masks,
        lambda d: write(
            (organs(0) > 1).astype(np.uint8), d.root / "p1/segmentations/spleen.nii.gz"
        ),
        "masks overlap, and a voxel has one label in nnU-Net: liver and spleen share",
        GLOBS,
    ),
    "mask of a structure missing": LayoutFault(
        make_masks,
        lambda d: (d.root / "p1/segmentations/spleen.nii.gz").unlink(),
        "there is no mask of spleen, only of kidney_left, liver.",
        GLOBS,
    ),
    "mask of several structures": LayoutFault(
        make_masks,
        lambda d: write(organs(0), d.root / "p1/segmentations/spleen.nii.gz"),
        "spleen.nii.gz has the values 0, 1, 2, 3; the mask of one structure has 0 and one other",
        GLOBS,
    ),
    "mask on another grid": LayoutFault(
        make_masks,
        lambda d: write(mask(0), d.root / "p1/segmentations/spleen.nii.gz", (1, 1, 3)),
        "spleen.nii.gz has another grid than the others",
        GLOBS,
    ),
    "fourth dimension that nothing explains": LayoutFault(
        lambda root: make_decathlon(root, {"0": "MR"}),
        nothing,
        "p_0.nii.gz has a fourth dimension of 2 volumes. If these are channels",
        ("--labeled", "2"),
    ),
    "case with other channels in a file": LayoutFault(
        lambda root: make_decathlon(root, {"0": "T2", "1": "ADC"}),
        lambda d: save_nifti(channels(1, 3), d.root / "imagesTr/p_1.nii.gz"),
        "p_1.nii.gz/channel 0 of 2: the file has 3 volumes in a fourth dimension",
        ("--labeled", "2"),
    ),
    "BIDS tree without options": LayoutFault(
        make_bids, nothing, "It looks like a BIDS tree: --image-glob '*_T1w.nii.gz'", WHAT
    ),
    "a folder a case without options": LayoutFault(
        make_masks, nothing, "It looks like a folder a case: --image-glob 'ct.nii.gz'", WHAT[2:]
    ),
    "two runs of a BIDS scan": LayoutFault(
        make_bids,
        lambda d: write(scan(50), d.root / "sub-00/anat/sub-00_run-2_T1w.nii.gz"),
        "case sub-00: must have one file like '*_T1w.nii.gz', it has: ",
        T1,
    ),
    "folder named for two uses": LayoutFault(
        make_folders,
        nothing,
        "--images and --extra-unlabeled both mean",
        (*WHAT, "--extra-unlabeled", "images"),
    ),
    "labeled scan among the unlabeled": LayoutFault(
        make_folders,
        link_to_labeled,
        "is named by --extra-unlabeled, but it is used already; a file has one use",
        (*WHAT, "--extra-unlabeled", "more"),
    ),
    "text before the case": LayoutFault(
        make_folders,
        with_prefixes,
        "which --image-prefix volume- --label-prefix segmentation- makes equal",
        WHAT,
    ),
    "names with nothing in common": LayoutFault(
        make_folders,
        lambda d: [path.rename(path.with_name(f"{path.name[1]}x.nii.gz")) for path in files_of(d)],
        "--image-prefix, --image-suffix, --label-prefix and --label-suffix take",
        WHAT,
    ),
    "images and labels side by side": LayoutFault(
        make_folders,
        side_by_side,
        "It looks like images and labels side by side: --images . --labels . --label-suffix _seg",
        WHAT,
    ),
    "a folder a structure": LayoutFault(
        lambda root: make_masks(root, "images/{}.nii.gz", "labels/{}"),
        by_structure,
        "labels has a folder a structure (kidney_left, liver, spleen)",
        GLOBS[4:],
    ),
}
