"""Install a model's zip once its members, sizes, hashes and pickles have been looked at."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import (
    convert_dataset_name_to_id,
    find_candidate_datasets,
)

from nnunet_semisup.dataset_conversion.reading.scans import source_sha256
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.raw import bullet_list
from nnunet_semisup.sharing.card import CARD, FORMAT_VERSION, PAGE
from nnunet_semisup.sharing.members import content_faults, items, models, name_faults, size_fault
from nnunet_semisup.sharing.page import FINAL, needs_of, predict_command
from nnunet_semisup.training.archive import archive


def install(file: Path, into: Path | None, overwrite: bool) -> list[Path]:
    """Install a zip of this package or of nnU-Net, and return the models' folders.

    Args:
        file: the zip.
        into: folder that it goes into; ``None``: ``nnUNet_results``.
        overwrite: whether models of the same name are replaced; they are kept under another name.

    Raises:
        UserError: the zip is damaged or refused, or a model of that name is there; all is told at
            once, and nothing is written.
    """
    results = Path(str(nnUNet_results)) if into is None else into
    try:
        with zipfile.ZipFile(file) as archived:
            names = _checked(archived, file, results, overwrite, numbered=into is None)
            beside = _existing(results)  # on its file system, so that what was looked at is moved
            with tempfile.TemporaryDirectory(prefix=".install_", dir=beside) as temporary:
                root = Path(temporary)
                archived.extractall(root)
                faults = [fault for name in models(names) for fault in _card_faults(root / name)]
                if faults := faults + content_faults(root):
                    raise _refusal(file, faults)
                for name in names:
                    _move(root / name, results / name)
    except OSError as error:
        raise UserError(f"'{file}' cannot be installed: {error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"'{file}' is no zip, or is damaged: {error}") from error
    return [results / name for name in models(names)]


def _refusal(file: Path, faults: list[str]) -> UserError:
    return UserError(f"'{file}' is not installed:\n{bullet_list(faults)}\nNothing was written.")


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _checked(
    archived: zipfile.ZipFile, file: Path, results: Path, overwrite: bool, numbered: bool
) -> list[str]:
    """Return what is installed, from what the zip tells about its members.

    Args:
        archived: the zip.
        file: its path.
        results: folder that it goes into.
        overwrite: whether models of the same name are replaced.
        numbered: whether nnU-Net finds the data sets of that folder by their numbers.
    """
    members = archived.infolist()
    faults = name_faults(members)
    free = shutil.disk_usage(_existing(results)).free
    if fault := size_fault(members, file.stat().st_size, free):
        faults.append(fault)
    names = items(members)
    if not models(names):
        faults.append("it has no model, a folder DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION")
    if not faults:
        faults = _taken(names, results, overwrite) + (_number_faults(names) if numbered else [])
    if faults:
        raise _refusal(file, faults)
    return names


def _taken(names: list[str], results: Path, overwrite: bool) -> list[str]:
    """Return models that are there and are not to be replaced."""
    return [
        f"'{results / name}' is there: --overwrite keeps it under another name"
        for name in names
        if not overwrite and os.path.lexists(results / name)
    ]


def _number_faults(names: list[str]) -> list[str]:
    """Return data sets whose number another one has in nnU-Net's folders."""
    faults = []
    for dataset in sorted({name.split("/")[0] for name in names}):
        number = convert_dataset_name_to_id(dataset)
        if others := sorted({str(name) for name in find_candidate_datasets(number)} - {dataset}):
            faults.append(
                f"{dataset}: the number is taken by {', '.join(others)} in nnU-Net's folders here, "
                "and with two of one number nnU-Net refuses every -d with it. Install elsewhere "
                "with --into FOLDER, and predict with -m"
            )
    return faults


def _card_faults(folder: Path) -> list[str]:
    """Return files that are not those of the card; none where there is no card."""
    try:
        card = read_card(folder)
    except UserError as error:
        return [str(error)]
    if card is None:
        return []
    told = card["files"]
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and path != folder / CARD
    }
    if others := sorted(set(told) ^ set(there)):
        return [f"{folder.name}: only the card or only the zip has {', '.join(others)}"]
    return [
        f"{folder.name}/{name}: other bytes than the card tells"
        for name, path in there.items()
        if source_sha256(path) != told[name]
    ]


def read_card(folder: Path) -> dict[str, Any] | None:
    """Return the card of an installed model; ``None`` where it has none.

    Raises:
        UserError: it is damaged, or of another version.
    """
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = content["format_version"] == FORMAT_VERSION
        fits = isinstance(content["files"], dict) and isinstance(content["model"]["needs"], list)
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{CARD} of {folder.name} is damaged: {error!r}") from error
    if not known or not fits:
        raise UserError(f"{CARD} of {folder.name} is none of version {FORMAT_VERSION}")
    return content


def _move(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    archive(target, print)
    source.rename(target)


def tell(folder: Path, named: bool) -> None:
    """Print how an installed model predicts.

    Args:
        folder: of the model.
        named: whether it lies in ``nnUNet_results``, where ``-d`` finds it.
    """
    card = read_card(folder)
    print(folder)
    if card is None:
        print("It has no card: its files could be compared with nothing, and nobody tells terms.")
    else:
        print(f"{needs_of(list(map(str, card['model']['needs'])))}")
        # As a literal, because a stranger's text could steer the terminal.
        print(f"Licence: {card['license']!r}. All else is in {PAGE}.")
    folds = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*"))
    checkpoints = sorted(path.name for path in folder.glob("fold_*/*.pth"))
    checkpoint = FINAL if FINAL in checkpoints or not checkpoints else checkpoints[0]
    if named:
        print(f"  {predict_command(f'{folder.parent.name}/{folder.name}', folds, checkpoint)}")
        return
    words = ["nnUNetv2_predict_from_modelfolder", "-i", "IMAGES", "-o", "PREDICTIONS"]
    words += ["-m", str(folder), "-f", *folds, "-chk", checkpoint]
    print(f"  {shlex.join(words)}")
