"""The two folders that are compared."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_semisup.errors import UserError


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
