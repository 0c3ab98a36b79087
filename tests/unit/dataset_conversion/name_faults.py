"""Folders whose label files name their values and contradict each other, or what the user says."""

from __future__ import annotations

import numpy as np

from tests.unit.dataset_conversion.trees_generic import WHAT, Folders, mask
from tests.unit.dataset_conversion.trees_names import Names, write_layers, write_nifti


def named(folders: Folders, case: str, names: Names) -> None:
    """A label of the value 1, and of 2 if it has a name or the file says nothing of it."""
    label = mask(int(case[1]))
    label[0, :3, :3] = 2 if names.keys() != {1} else 0
    write_nifti(label, folders.label(case), names)


def layers(folders: Folders, overlap: bool, layer: int = 1) -> None:
    """The label of ``p1`` as two segments in layers; the second says that it is in ``layer``."""
    first, second = np.zeros((2, *mask(0).shape), np.uint8)
    first[2:6, 2:9, 2:9] = 1
    second[(5 if overlap else 6) : 9, 2:9, 2:9] = 1
    folders.label("p1").unlink()
    path = folders.labels / "p1.nrrd"
    write_layers([first, second], ["organ", "Vein"], path)
    path.write_bytes(
        path.read_bytes().replace(b"Segment1_Layer:=1", f"Segment1_Layer:={layer}".encode())
    )


NAME_FAULTS = {
    "label that names what no label is": (
        lambda d: named(d, "p1", {1: "tumour"}),
        "case p1: ",
        "its header names 1 'tumour', and the labels of the data set are background, organ",
    ),
    "label that names another value than --label-map": (
        lambda d: named(d, "p1", {1: "Organ"}),
        "the value 1 'Organ', which is 1 in the data set's labels, and --label-map says 1:0",
        (*WHAT, "--label-map", "1:0"),
    ),
    "label that names a part of its values": (
        lambda d: named(d, "p1", {1: "organ", 3: "vein"}),
        "but not the value 2, which occurs. Name it in the file, or say what it is: --label-map 2:",
    ),
    "two labels that name one value differently": (
        lambda d: [named(d, "p1", {1: "Leber"}), named(d, "p2", {1: "Milz"})],
        "a name two values: 1 is 'Leber' in p1; 1 is 'Milz' in p2. Say what the names are",
        (*WHAT, "--label-map", "1:1"),
    ),
    "segments that overlap": (
        lambda d: layers(d, overlap=True),
        "p1.nrrd: its segments overlap ('organ' and 'Vein' share 49 voxels)",
    ),
    "layer that the file lacks": (
        lambda d: layers(d, overlap=False, layer=2),
        "has segment 'Vein' in layer 2, counted from 0, and the file has 2",
    ),
    "layer of no label": (
        lambda d: layers(d, overlap=False),
        "its header names 'Vein', and the labels of the data set are background, organ",
    ),
    "labels of the same name": (
        lambda d: None,
        "the labels 'organ' and 'Organ' differ in upper case, blanks, _ or - only; rename one",
        ("--label-names", "background,organ,Organ", "--channel-names", "MR"),
    ),
    "name mapped twice": (
        lambda d: None,
        "--label-map tumour:1,Tumour:0 maps Tumour twice",
        (*WHAT, "--label-map", "tumour:1,Tumour:0"),
    ),
}
"""By name of the fault: what breaks the folders, parts of the message, unusual options."""
