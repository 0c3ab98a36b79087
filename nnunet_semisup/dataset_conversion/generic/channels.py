"""Several channels in one file: the fourth dimension of scans, as the Decathlon has them.

nnU-Net wants a file a channel. A channel of a file is named by a path below the file,
``CASE.nii.gz/channel 0 of 2``, so that everything else handles it like a file of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from nnunet_semisup.dataset_conversion.cases import SourceFiles
from nnunet_semisup.dataset_conversion.conversion import Collected
from nnunet_semisup.dataset_conversion.reading.as_nnunet import read_itk_channels
from nnunet_semisup.dataset_conversion.volume import UnusableFileError, Volume

_CHANNEL = re.compile(r"channel (\d+) of (\d+)")


def is_channel(path: Path) -> bool:
    """Return whether a path names a channel of a file."""
    return bool(_CHANNEL.fullmatch(path.name)) and path.parent.is_file()


def source_of(path: Path) -> Path:
    """Return the file that a path names, itself or a channel of it."""
    return path.parent if is_channel(path) else path


def split_channels(collected: Collected, number: int) -> None:
    """Replace every image file by its channels.

    Args:
        collected: whose cases have one file each.
        number: of the channels in a file.
    """
    for cases in (collected.cases, collected.unlabeled):
        for case, files in cases.items():
            channels = tuple(_channels(files.images[0], number))
            cases[case] = SourceFiles(channels, files.label)


def _channels(path: Path, number: int) -> list[Path]:
    return [path / f"channel {channel} of {number}" for channel in range(number)]


def names_of_channels(given: str | None, found: Mapping[str, object], number: int) -> bool:
    """Return whether as many channels are named as a file has volumes.

    Args:
        given: ``--channel-names``.
        found: content of a ``dataset.json`` beside the data.
        number: of volumes in a file.
    """
    listed = found.get("channel_names") or found.get("modality")
    names = given.split(",") if given is not None else listed if isinstance(listed, dict) else ()
    return len(names) == number


def read_channel(path: Path) -> Volume:
    """Read one channel of a file.

    Args:
        path: as :func:`split_channels` names it.

    Returns:
        The voxels as they are stored, ``(z, y, x)``.

    Raises:
        UnreadableFileError: see :func:`as_nnunet.read_itk_channels`.
        UnusableFileError: the file has another number of channels.
    """
    match = _CHANNEL.fullmatch(path.name)
    assert match is not None
    channel, number = int(match[1]), int(match[2])
    stamp = path.parent.stat()
    volume = _read_last(path.parent, stamp.st_mtime_ns, stamp.st_size)
    if volume.components != number:
        raise UnusableFileError(
            f"the file has {volume.components} volumes in a fourth dimension, others have "
            f"{number}. Give files with the same channels, or leave this one out"
        )
    array = volume.array[..., channel] if number > 1 else volume.array
    return Volume(np.ascontiguousarray(array), volume.geometry)


@lru_cache(maxsize=1)
def _read_last(path: Path, _modified: int, _size: int) -> Volume:
    """Read a file and keep it until another is read: its channels are asked for in turn."""
    return read_itk_channels(path)
