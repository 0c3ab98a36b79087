"""Add options of several commands for what is a fault in most data sets, and right in some."""

from __future__ import annotations

import argparse


def add_constant_channels(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-constant-channels``."""
    parser.add_argument(
        "--allow-constant-channels",
        action="store_true",
        help="accept cases in which a channel has one value in every voxel, such as zeros for a "
        "sequence that a scan lacks; another channel must vary",
    )


def add_accepted(parser: argparse.ArgumentParser) -> None:
    """Add the options for labeled cases, too."""
    parser.add_argument(
        "--allow-empty", action="store_true", help="accept labels without foreground"
    )
    add_constant_channels(parser)
