"""Content of a raw nnU-Net data set: folders, cases, and the training images as the reference."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.environment import require_set
from nnunet_semisup.preparation.layout import IMAGES_UNLABELED

_JUNK_NAMES = frozenset({"desktop.ini", "thumbs.db"})
_SIDE_FILE_ENDINGS = frozenset({".tif", ".tiff"})
_NAMED = 10
"""Cases that a message names before it only counts."""


@dataclass
class ImageFolder:
    """Hold the content of an image folder of a data set with ``file_ending``.

    ``cases`` maps an id to its files by channel number, ``side_files`` an id to the JSON file with
    its spacing (3D tif only), ``faults`` says what is wrong with names, ``junk`` was ignored.
    """

    file_ending: str
    cases: dict[str, dict[int, Path]] = field(default_factory=dict)
    side_files: dict[str, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DatasetFolders:
    """Hold a data set's name and its folders in ``nnUNet_raw`` and ``nnUNet_preprocessed``."""

    name: str
    raw: Path
    preprocessed: Path


def find_dataset(dataset_name_or_id: str | int) -> DatasetFolders:
    """Find the folders of a data set, by id or name.

    Raises:
        UserError: an environment variable of nnU-Net is not set, or there is no such raw data set.
    """
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    require_set("nnUNet_raw", "nnUNet_preprocessed")
    try:
        name = str(maybe_convert_to_dataset_name(dataset_name_or_id))
    except (RuntimeError, ValueError) as error:
        raise UserError(str(error)) from error
    raw = Path(nnUNet_raw) / name
    if not raw.is_dir():
        raise UserError(f"{raw} does not exist: the raw images of {name} are needed.")
    return DatasetFolders(name, raw, Path(nnUNet_preprocessed) / name)


def read_dataset_json(folder: Path) -> dict[str, Any]:
    """Read ``dataset.json``.

    Raises:
        UserError: absent, not JSON, or without ``file_ending`` or channel names.
    """
    path = folder / "dataset.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); nnU-Net needs it. Correct it."
        ) from error
    if "file_ending" not in content or not {"channel_names", "modality"} & content.keys():
        raise UserError(f"{path} must have the keys 'channel_names' and 'file_ending'.")
    return content


def read_labels_json(path: Path) -> dict[str, Any]:
    """Read a ``dataset.json`` of which only the labels are needed, wherever it lies.

    Raises:
        UserError: not readable as JSON, or without ``labels`` by name.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"'{path}' cannot be read as JSON ({error}). Repair or replace it."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise UserError(
            f"'{path}' has no 'labels' as nnU-Net v2 wants them, for example "
            '"labels": {"background": 0, "heart": 1}. Give the dataset.json of a data set.'
        )
    return content


def unlabeled_ids(dataset_name: str) -> frozenset[str]:
    """Return the ids of ``imagesUn`` of a raw data set; none where it cannot be looked at.

    Args:
        dataset_name: ``DatasetXXX_Name`` in ``nnUNet_raw``, which need not be set.
    """
    from nnunetv2.paths import nnUNet_raw

    if not nnUNet_raw.get():
        return frozenset()
    return unlabeled_in(Path(nnUNet_raw, dataset_name))


def unlabeled_in(raw: Path) -> frozenset[str]:
    """Return the ids of ``imagesUn`` of a raw data set's folder; none where it is none."""
    try:
        file_ending = read_dataset_json(raw)["file_ending"]
    except UserError:
        return frozenset()
    return frozenset(list_images(raw / IMAGES_UNLABELED, file_ending).cases)


def num_channels(dataset_json: dict[str, Any]) -> int:
    """Return the number of input channels that ``dataset.json`` declares."""
    return len(dataset_json.get("channel_names") or dataset_json["modality"])


def list_images(folder: Path, file_ending: str) -> ImageFolder:
    """Sort the content of ``folder`` into cases, junk and faults; an absent folder is empty."""
    found = ImageFolder(file_ending)
    if not folder.is_dir():
        return found
    pattern = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})" + re.escape(file_ending))
    others = []
    for path in sorted(folder.iterdir()):
        if is_junk(path):
            found.junk.append(path.name)
        elif match := pattern.fullmatch(path.name):
            found.cases.setdefault(match["id"], {})[int(match["channel"])] = path
        else:
            others.append(path)
    for path in others:
        if (
            file_ending in _SIDE_FILE_ENDINGS
            and path.suffix == ".json"
            and path.stem in found.cases
        ):
            found.side_files[path.stem] = path
        else:
            found.faults.append(_name_fault(path, file_ending))
    return found


def composed(name: str) -> str:
    """Return a name with each letter and its accent as one character (Unicode's NFC).

    macOS and what was copied from it write ``u`` and two dots where others write ``ü``; both look
    alike and are different names for nnU-Net.
    """
    return unicodedata.normalize("NFC", name)


def is_junk(path: Path) -> bool:
    """Return whether a file is a by-product of an operating system or hidden, not data."""
    return path.name.startswith((".", "_")) or path.name.lower() in _JUNK_NAMES


def _name_fault(path: Path, file_ending: str) -> str:
    expected = f"<case>_0000{file_ending}"
    if path.is_dir():
        return f"{path.name}: is a folder; the files belong directly into {path.parent.name}"
    if path.name.endswith(file_ending):
        return f"{path.name}: has no channel number; expected a name like {expected}"
    return (
        f"{path.name}: wrong file ending; the data set's is {file_ending} (like {expected}). "
        "Convert it, or move it away"
    )


def training_images(raw_folder: Path, dataset_json: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the channel files of every labeled case, by id.

    Raises:
        UserError: there is no labeled case.
    """
    if "dataset" in dataset_json:
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        entries = get_filenames_of_train_images_and_targets(str(raw_folder), dict(dataset_json))
        images = {name: [Path(i) for i in entry["images"]] for name, entry in entries.items()}
    else:
        listed = list_images(raw_folder / "imagesTr", dataset_json["file_ending"])
        images = {name: in_order(files) for name, files in listed.cases.items()}
    if not images:
        raise UserError(
            f"{raw_folder / 'imagesTr'} has no <case>_0000{dataset_json['file_ending']}; "
            "nnU-Net plans from labeled cases, so at least one is needed."
        )
    return images


def training_labels(raw_folder: Path, dataset_json: dict[str, Any]) -> dict[str, Path]:
    """Return the label file of every labeled case, by id; it need not exist."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    content = copy.deepcopy(dataset_json)
    entries = get_filenames_of_train_images_and_targets(str(raw_folder), content)
    return {name: Path(entry["label"]) for name, entry in entries.items()}


def in_order(files: dict[int, Path]) -> list[Path]:
    """Return the files by rising channel number."""
    return [files[channel] for channel in sorted(files)]


def bullet_list(faults: Iterable[str]) -> str:
    """Return the faults as indented lines of a message."""
    return "\n".join(f"  - {fault}" for fault in faults)


def named(cases: Sequence[str]) -> str:
    """Return the names of cases for a message, of many the first and the number of the others."""
    shown = ", ".join(cases[:_NAMED])
    return shown if len(cases) <= _NAMED else f"{shown} and {len(cases) - _NAMED} more"
