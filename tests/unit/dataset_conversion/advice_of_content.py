"""What the messages of ``content_faults`` ask for, done by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from nnunet_semisup.dataset_conversion.reading.pictures import read_mask
from nnunet_semisup.preparation.raw import composed
from tests.unit.dataset_conversion import content_faults
from tests.unit.dataset_conversion.advice import Options, Reader
from tests.unit.dataset_conversion.trees import read
from tests.unit.dataset_conversion.trees_generic import scan, write


def _packed(reader: Reader) -> Options:
    for path in (reader.folder).rglob("*.nii.gz"):
        if not path.read_bytes().startswith(b"\x1f\x8b"):
            content_faults.pack(path)
    return ()


def _fetched(reader: Reader) -> Options:
    for path in reader.folder.rglob("*.nii.gz"):
        if path.is_symlink():
            path.unlink()
    return reader.add_what_is_missing()


def _with_ending(reader: Reader) -> Options:
    reader.tree.image("p4").rename(reader.tree.images / "p4.nii.gz")
    return ()


def _mask_as_png(reader: Reader) -> Options:
    path = reader.tree.labels / "p1_manual.jpg"
    grey = read_mask(path).array
    path.unlink()
    write(((grey > 127) * 255).astype(np.uint8), path.with_suffix(".png"))
    return ()


def _rounded(reader: Reader) -> Options:
    path = reader.tree.label("p1")
    write(np.rint(read(path)).astype(np.uint8), path)
    return ()


def _told_size(reader: Reader) -> Options:
    told = re.search(r"write (\S+) with ({.*})", reader.line)
    assert told is not None
    (reader.tree.images / told[1]).write_text(told[2])
    return ()


def _pages_as_files(reader: Reader) -> Options:
    path = reader.tree.image("p4")
    for channel, page in enumerate(scan(3)):
        write(page, path.with_name(f"p4_{channel:04d}.tif"))
    path.unlink()
    return ()


def _slices_in_one_folder(reader: Reader) -> Options:
    for path in reader.tree.root.rglob("*.png"):
        path.rename(path.parent.parent / f"{path.parent.name}_{path.name}")
    for path in reader.tree.root.glob("*/*/"):
        path.rmdir()
    return ("--group-regex", "^(.+)_")


def _same_letters(reader: Reader) -> Options:
    for path in (reader.tree / "labelsTr").iterdir():
        path.rename(path.with_name(composed(path.name)))
    return ()


OF_CONTENT: dict[tuple[str, str], Callable[[Reader], Options]] = {
    ("generic", "NIfTI that is not compressed, under .nii.gz"): _packed,
    ("generic", "NIfTI that is compressed, under .nii"): _with_ending,
    ("generic", "label that is a link to nothing"): _fetched,
    ("generic", "mask of a structure that is a link to nothing"): _fetched,
    ("verify", "link to nothing"): _fetched,
    ("generic", "pointer of Git LFS"): Reader.take_the_original,
    ("generic", "pointer of git-annex"): Reader.take_the_original,
    ("generic", "web page in place of a scan"): Reader.take_the_original,
    ("generic", "zip archive in place of a scan"): Reader.take_the_original,
    ("generic", "mask in JPEG"): _mask_as_png,
    ("generic", "label of rounded values"): _rounded,
    ("generic", "DICOM slices without voxel size"): Reader.extract_again,
    ("generic", "TIFF stack with the voxel size in OME metadata"): _told_size,
    ("generic", "TIFF whose pages are channels"): _pages_as_files,
    ("generic", "a folder of slices a case"): _slices_in_one_folder,
    ("generic", "folder and pattern of labels"): lambda _: ("without:--label-glob",),
    ("verify", "pointer of Git LFS"): Reader.take_the_original,
    ("verify", "not compressed"): _packed,
    ("verify", "letters of a name stored in two ways"): _same_letters,
}
