"""Files that are intact and something else than their name says, or hold what cannot be used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom import dcmread

from tests.unit.dataset_conversion.layout_faults import (
    GLOBS,
    SERIES,
    LayoutFault,
    make_masks,
    make_series,
)
from tests.unit.dataset_conversion.trees_generic import (
    LABELED,
    PHOTO_OPTIONS,
    UNLABELED,
    WHAT,
    Folders,
    make_folders,
    make_photos,
    mask,
    scan,
    write,
)

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = "<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"
STACK = {"spacing": [1.0, 0.5, 0.5]}


def unpack(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def pack(path: Path) -> None:
    path.write_bytes(gzip.compress(path.read_bytes()))


def link_to_nothing(path: Path) -> None:
    """What git-annex and DataLad have in place of a file that was not fetched."""
    path.unlink()
    path.symlink_to("../.git/annex/objects/MD5E-s12")


def make_slices(root: Path) -> Folders:
    """A folder of numbered pictures a patient, and one of masks for three."""
    for number, case in enumerate(LABELED + UNLABELED):
        for index in range(4):
            write(scan(10 * number + index, (40, 44)), root / f"images/{case}/{index:03d}.png")
            if case in LABELED:
                write(mask(index, 1, (40, 44)), root / f"labels/{case}/{index:03d}.png")
    return Folders(root)


def make_stacks(root: Path) -> Folders:
    """3D TIFF with the voxel size beside it."""
    for number, case in enumerate(LABELED + UNLABELED):
        for folder, array in (("images", scan(number)), ("labels", mask(number))):
            if folder == "images" or case in LABELED:
                path = root / folder / f"{case}.tif"
                path.parent.mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(path, array)
                path.with_suffix(".json").write_text(json.dumps(STACK))
    return Folders(root, ".tif")


def with_metadata(folders: Folders, axes: str) -> None:
    """The stack ``p4`` as microscopy software writes it."""
    path = folders.image("p4")
    path.with_suffix(".json").unlink()
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 1.0}
    tifffile.imwrite(path, scan(3), ome=True, metadata={"axes": axes, **size})


def jpeg_mask(folders: Folders) -> None:
    path = folders.labels / "p1_manual.gif"
    with Image.open(path) as picture:
        picture.convert("L").save(path.with_suffix(".jpg"))
    path.unlink()


def without_pixel_spacing(folders: Folders) -> None:
    for path in (folders.root / "scans/P2").iterdir():
        content = dcmread(path)
        del content.PixelSpacing
        content.save_as(path)


def rounded(folders: Folders) -> None:
    write(mask(0).astype(np.float32) * np.float32(0.9999), folders.label("p1"))


FAULTS = {
    "NIfTI that is not compressed, under .nii.gz": LayoutFault(
        make_folders,
        lambda d: unpack(d.image("p4")),
        "p4.nii.gz: is NIfTI that is not compressed, though its name ends in .gz",
        WHAT,
    ),
    "NIfTI that is compressed, under .nii": LayoutFault(
        lambda root: make_folders(root, ".nii"),
        lambda d: pack(d.image("p4")),
        "p4.nii: is compressed by gzip, though its name says .nii; rename it to p4.nii.gz",
        WHAT,
    ),
    "label that is a link to nothing": LayoutFault(
        make_folders,
        lambda d: link_to_nothing(d.label("p1")),
        "p1.nii.gz: is a link to ../.git/annex/objects/MD5E-s12, which is not there",
        WHAT,
    ),
    "mask of a structure that is a link to nothing": LayoutFault(
        make_masks,
        lambda d: link_to_nothing(d.root / "p1/segmentations/spleen.nii.gz"),
        "spleen.nii.gz is a link to ../.git/annex/objects/MD5E-s12, which is not there",
        GLOBS,
    ),
    "pointer of Git LFS": LayoutFault(
        make_folders,
        lambda d: d.label("p1").write_text(LFS_POINTER),
        "p1.nii.gz: is a pointer of Git LFS, not the file itself; fetch it",
        WHAT,
    ),
    "pointer of git-annex": LayoutFault(
        make_folders,
        lambda d: d.image("p4").write_text("/annex/objects/MD5E-s12--ab.nii.gz\n"),
        "p4.nii.gz: is a pointer of git-annex, not the file itself; fetch it",
        WHAT,
    ),
    "web page in place of a scan": LayoutFault(
        make_folders,
        lambda d: d.image("p4").write_text(PAGE),
        "p4.nii.gz: is a web page, which the server sent in place of the file",
        WHAT,
    ),
    "zip archive in place of a scan": LayoutFault(
        make_folders,
        lambda d: d.image("p4").write_bytes(b"PK\x03\x04" + bytes(30)),
        "p4.nii.gz: is a zip archive; extract it",
        WHAT,
    ),
    "mask in JPEG": LayoutFault(
        make_photos,
        jpeg_mask,
        "JPEG changes values near edges: take the original file",
        PHOTO_OPTIONS,
    ),
    "label of rounded values": LayoutFault(
        make_folders,
        rounded,
        "whole numbers (0, 0.9999). They are whole numbers but for the rounding of a program",
        WHAT,
    ),
    "DICOM slices without voxel size": LayoutFault(
        make_series,
        without_pixel_spacing,
        "and 5 more files in that folder: PixelSpacing is not in the header. Take the files as",
        SERIES,
    ),
    "TIFF stack with the voxel size in OME metadata": LayoutFault(
        make_stacks,
        lambda d: with_metadata(d, "ZYX"),
        'write p4.json with {"spacing": [0.001, 0.0005, 0.0005]}, which are the mm of its',
        WHAT,
    ),
    "TIFF whose pages are channels": LayoutFault(
        make_stacks,
        lambda d: with_metadata(d, "CYX"),
        "p4.tif: has 10 pages that are channels of one picture by its metadata",
        WHAT,
    ),
    "a folder of slices a case": LayoutFault(
        make_slices, lambda _: None, "It looks like a folder of slices a case, such as", WHAT
    ),
    "folder and pattern of labels": LayoutFault(
        make_folders,
        lambda _: None,
        "--labels and --label-glob exclude each other",
        (*WHAT, "--labels", "labels", "--image-glob", "ct*", "--label-glob", "seg*"),
    ),
}
