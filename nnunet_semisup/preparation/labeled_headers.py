"""Labeled cases that say one thing and would be read as another, before nnU-Net plans from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.headers import misreading
from nnunet_semisup.headers.nifti import NIBABEL_READERS
from nnunet_semisup.preparation.raw import bullet_list


def refuse_misread(
    raw: Path, dataset_json: Mapping[str, Any], training: Mapping[str, Sequence[Path]], reader: str
) -> None:
    """Look at the headers of all labeled images and labels; nothing else of them is read.

    Args:
        raw: folder of the data set.
        dataset_json: its content.
        training: the images by case.
        reader: name of nnU-Net's class that will read them.

    Raises:
        UserError: naming every file that the reader takes for something else than it says.
    """
    files = [(path, False) for images in training.values() for path in images]
    labels = (raw / "labelsTr" / f"{case}{dataset_json['file_ending']}" for case in training)
    files += [(path, True) for path in labels]
    faults = [
        f"{path.parent.name}/{path.name}: {fault}"
        for path, is_label in files
        if path.is_file() and (fault := misreading(path, is_label, reader in NIBABEL_READERS))
    ]
    if faults:
        raise UserError(
            f"{len(faults)} file(s) of the labeled cases in {raw} say one thing and would be read "
            f"as another; nothing was written:\n{bullet_list(faults)}"
        )
