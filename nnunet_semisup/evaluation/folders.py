"""Check the two folders that are compared, by what ``nnUNetv2_predict`` tells of them, too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from nnunet_semisup.errors import UserError

_RECORD = "predict_from_raw_data_args.json"
"""File that nnU-Net (2.8.1) writes into its folder when a prediction begins."""
_MINUTE = 60.0
"""Files of one copy are younger than that; predictions of two trainings are not."""


def told_by_predict(reference: Path, prediction: Path, files: Mapping[str, Path]) -> list[str]:
    """Return warnings about exchanged folders and about predictions that an earlier run left.

    Args:
        reference: folder of the references.
        prediction: folder of the predictions.
        files: case to its file in the latter.
    """
    warnings = []
    if (reference / _RECORD).is_file():
        warnings.append(
            f"'{reference}' was written by nnUNetv2_predict: give the references first, then the "
            "predictions"
        )
    record = prediction / _RECORD
    try:
        content, begun = json.loads(record.read_text("utf-8")), record.stat().st_mtime
        kept_on_purpose = not content["overwrite"] or content["num_parts"] != 1
    except (OSError, ValueError, LookupError, TypeError):
        return warnings
    old = sorted(name for name, path in files.items() if path.stat().st_mtime < begun - _MINUTE)
    if old and not kept_on_purpose:
        warnings.append(
            f"predictions that are older than the last nnUNetv2_predict into '{prediction}', "
            f"perhaps of another model: {', '.join(old)}"
        )
    return warnings


def refuse_exchanged(reference: Path, prediction: Path) -> None:
    """Refuse predictions in the place of references, beside which a report would be written.

    Args:
        reference: folder of the references.
        prediction: folder of the predictions.

    Raises:
        UserError: ``nnUNetv2_predict`` wrote the former, and not the latter.
    """
    if (reference / _RECORD).is_file() and not (prediction / _RECORD).is_file():
        raise UserError(
            f"'{reference}' was written by nnUNetv2_predict, and '{prediction}' was not: give the "
            f"references first, then the predictions. If they are so, move {_RECORD} away."
        )


def check_folders(reference: Path, prediction: Path) -> None:
    """Refuse a folder that is not there, or that is compared with itself.

    Raises:
        UserError: naming every such folder.
    """
    faults = [
        f"the {role} folder '{folder}' {'is not a folder' if folder.exists() else 'does not exist'}"
        for role, folder in (("reference", reference), ("prediction", prediction))
        if not folder.is_dir()
    ]
    if faults:
        raise UserError(f"{' and '.join(faults)}. Check the path.")
    if os.path.samefile(reference, prediction):
        raise UserError(
            f"'{reference}' is given as references and as predictions: each case would equal "
            "itself. Give the folder of the predictions second."
        )
