"""List what the command line offers for each data set; imports nothing that reads files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.generic import options as generic

LINKS = ("copy", "hardlink", "symlink")
EXTRA = ("ignore", "unlabeled", "error")
RAW_OR_H5 = ("auto", "raw", "h5")
_DATASETS = "nnunet_semisup.dataset_conversion.datasets"


@dataclass(frozen=True)
class Offer:
    """Describe a data set to the command line.

    Attributes:
        name: follows the id in the data set's name.
        title: its line in the list of commands.
        module: whose ``prepare`` finds the cases and says what they are used for.
        add_arguments: adds the options of this data set to the common ones.
        split_option: metavar and help of ``--split``, without published lists; ``None``: with.
    """

    name: str
    title: str
    module: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    split_option: tuple[str, str] | None = None

    def prepare(self, arguments: argparse.Namespace) -> Any:
        """Return what the module makes of a command line."""
        return import_module(self.module).prepare(arguments)


def add_source(parser: argparse.ArgumentParser, sources: tuple[str, ...]) -> None:
    """Add ``--source``; the first is ``auto``."""
    parser.add_argument(
        "--source",
        default=sources[0],
        choices=sources,
        help="form of the files (default: %(default)s, the one that is there)",
    )


def add_spacing(parser: argparse.ArgumentParser, default: float) -> None:
    """Add ``--spacing`` for h5 files, which hold none."""
    parser.add_argument(
        "--spacing",
        type=float,
        default=default,
        metavar="MM",
        help="voxel size to assume for h5 files, which hold none (default: %(default)s)",
    )


LA_SPACING = 0.625


def _la(parser: argparse.ArgumentParser) -> None:
    add_source(parser, RAW_OR_H5)
    add_spacing(parser, LA_SPACING)


PANCREAS_SOURCES = ("auto", "raw", "nii", "mcnet-h5", "coranet-h5")


def _pancreas(parser: argparse.ArgumentParser) -> None:
    add_source(parser, PANCREAS_SOURCES)
    add_spacing(parser, 1.0)
    parser.add_argument(
        "--labels-dir",
        type=Path,
        metavar="DIR",
        help="folder with label0001.nii.gz ... of TCIA's label archive (default: below RAW_DIR)",
    )
    parser.add_argument(
        "--drop-withdrawn",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out cases 25 and 70, which show the same scan as case 2 (default: on)",
    )


BRATS_SPACING = 1.0


def _brats2019(parser: argparse.ArgumentParser) -> None:
    add_source(parser, RAW_OR_H5)
    add_spacing(parser, BRATS_SPACING)
    parser.add_argument(
        "--channels",
        default="flair",
        choices=("flair", "all"),
        help="flair as in the semi-supervised literature (default), or T1, T1ce, T2 and FLAIR",
    )
    parser.add_argument(
        "--target",
        default="wt",
        choices=("wt", "regions"),
        help="wt: the whole tumor as one label, as in the literature (default); regions: whole "
        "tumor, tumor core and enhancing tumor, as in the challenge",
    )


MSD_LUNG_SPACING = 1.0


def _msd_lung(parser: argparse.ArgumentParser) -> None:
    add_source(parser, RAW_OR_H5)
    add_spacing(parser, MSD_LUNG_SPACING)
    parser.add_argument(
        "--use-imagesTs",
        dest="use_images_ts",
        action="store_true",
        help="use the decathlon's test scans, whose labels are not public, as unlabeled cases",
    )


ACDC_SPACING = (1.3, 1.3, 10.0)


def _acdc(parser: argparse.ArgumentParser) -> None:
    add_source(parser, RAW_OR_H5)
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        default=ACDC_SPACING,
        metavar=("X", "Y", "Z"),
        help="voxel size in mm to assume for h5 files, which hold none "
        f"(default: {' '.join(f'{step:g}' for step in ACDC_SPACING)})",
    )


OFFERS = {
    "generic": Offer(
        "Generic",
        "your own folders: nii, nrrd, mha, gipl, DICOM series, png, tif, bmp, jpg",
        "nnunet_semisup.dataset_conversion.generic.converter",
        generic.add_arguments,
        generic.SPLIT_OPTION,
    ),
    "lc": Offer(
        "LC",
        "LC of VQ-Seg (CT of lung carcinoma); its layout is not published and assumed",
        f"{_DATASETS}.lc",
        generic.add_arguments,
        (
            "seed:N|FILE.json",
            "needed for scans, since none is published: patients drawn at random, or a json file "
            "with the lists labeled, unlabeled and optionally validation and test",
        ),
    ),
    "la": Offer("LA2018", "2018 Atrial Segmentation Challenge, nrrd or h5", f"{_DATASETS}.la", _la),
    "pancreas": Offer(
        "PancreasCT", "NIH Pancreas-CT, DICOM, NIfTI or h5", f"{_DATASETS}.pancreas", _pancreas
    ),
    "brats2019": Offer(
        "BraTS2019", "BraTS 2019, NIfTI or h5", f"{_DATASETS}.brats2019", _brats2019
    ),
    "msd_lung": Offer(
        "MSDLung",
        "Medical Segmentation Decathlon, Task06_Lung, NIfTI or h5",
        f"{_DATASETS}.msd_lung",
        _msd_lung,
    ),
    "acdc": Offer(
        "ACDC", "Automated Cardiac Diagnosis Challenge, NIfTI or h5", f"{_DATASETS}.acdc", _acdc
    ),
}
"""Offers by the name of the command."""
