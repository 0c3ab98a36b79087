"""Options of the command for a user's own folders."""

from __future__ import annotations

import argparse
from pathlib import Path

BY_LABELS = "labels"
LAST = "last"
OVERLAPS = ("refuse", LAST)
SPLIT_OPTION = (
    "labels|seed:N|FILE.json",
    "labels (default): cases with a label keep it, in the order of their names; seed:N: in random "
    "order, patient by patient; or a json file with the lists labeled, unlabeled and optionally "
    "validation and test",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command alone."""
    _add_places(parser)
    _add_meaning(parser)
    parser.set_defaults(split=BY_LABELS)


def _add_places(parser: argparse.ArgumentParser) -> None:
    """Add options that say where the files are and how their names give the case."""
    add = parser.add_argument
    add("--images", type=Path, metavar="DIR", help="folder of the images, in RAW_DIR or anywhere")
    add("--labels", type=Path, metavar="DIR", help="folder of the labels that there are")
    add("--test", type=Path, metavar="DIR", help="folder of images for imagesTs")
    add("--test-labels", type=Path, metavar="DIR", help="folder of their labels")
    add(
        "--image-suffix",
        default="",
        metavar="TEXT[,TEXT...]",
        help="text after the case in the names of images, one a channel (_flair,_t1); default: "
        "none, or _0000 and so on as nnU-Net has it",
    )
    add(
        "--label-suffix",
        default="",
        metavar="TEXT",
        help="text after the case in the names of labels, such as _mask",
    )
    for what in ("image", "label"):
        add(
            f"--{what}-prefix",
            default="",
            metavar="TEXT",
            help=f"text before the case in the names of {what}s, such as {what}-",
        )
    add(
        "--image-glob",
        metavar="GLOB[,GLOB...]",
        help="for cases with a folder each, and BIDS: file name of the image, one a channel "
        "('ct*.nii.gz')",
    )
    add(
        "--label-glob",
        metavar="GLOB",
        help="the same for the label; 'segmentations/*' for a folder with one mask a structure",
    )


def _add_meaning(parser: argparse.ArgumentParser) -> None:
    """Add options that say what the files mean and what the cases are used for."""
    add = parser.add_argument
    add("--channel-names", metavar="NAME[,NAME...]", help="CT, or any other word for other scans")
    add(
        "--label-names",
        metavar="background,NAME...",
        help="names of the values 0, 1, ...; default: those of dataset.json, or in label files",
    )
    add("--labels-json", type=Path, metavar="FILE", help="nnU-Net's labels, regions, ignore label")
    add(
        "--overlap",
        choices=OVERLAPS,
        default=OVERLAPS[0],
        help="for one mask file a structure: where masks overlap, refuse them (default), or the "
        "one named last in --label-names has the voxel",
    )
    add(
        "--label-map",
        metavar="OLD:NEW,...",
        help="values, or names that label files give their values, to the values 0, 1, ...",
    )
    add(
        "--validation",
        metavar="N|FILE",
        help="cases kept for validation (fold 0): the last N with a label, or those named in FILE",
    )
    add(
        "--group-regex",
        metavar="REGEX",
        help="pattern whose first bracket is the patient in a case's name, such as '^([0-9]+)_'; "
        "all cases of a patient stay together and numbers count patients",
    )
