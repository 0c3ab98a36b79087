"""Members of a model's zip: where they would go, how large they are, what they hold."""

from __future__ import annotations

import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from nnunet_semisup.errors import UserError
from nnunet_semisup.safe_files import read_checkpoint_file, read_pickle

POSTPROCESSING = "postprocessing.pkl"
"""What nnU-Net found out over the folds: its own functions and their arguments, in a pickle."""
_FUNCTIONS = tuple(
    f"nnunetv2.postprocessing.remove_connected_components.{name}"
    for name in ("remove_all_but_largest_component_from_segmentation",)
)
_NAME = r"[^/\\:\x00-\x1f]+"
_DATASET = re.compile(r"Dataset\d{3,}_" + _NAME)
_MODEL = re.compile(r"[\w.-]+")
_BESIDE = ("ensembles", "inference_information.json", "inference_information.txt")
"""What nnU-Net's export puts beside the models of a data set."""
RATIO = 100
"""Told size over the zip's own: weights are packed to about 0.9, text to about 0.1."""


def name_faults(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Return what is wrong with the names and kinds of members.

    Python's ``extractall`` drops ``..``, drives and leading slashes without a word, so that such a
    file would land in the place of another one.
    """
    faults = [
        f"{member.filename!r} {reason}" for member in members if (reason := _name_fault(member))
    ]
    names = Counter(member.filename.rstrip("/").casefold() for member in members)
    faults += [f"{name!r} is there {n} times" for name, n in names.items() if n > 1]
    return faults


def _name_fault(member: zipfile.ZipInfo) -> str:
    # The name as it is in the file: ZipInfo cuts it at a zero, and on Windows turns backslashes.
    name = member.orig_filename.rstrip("/")
    parts = name.split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if any(part in ("", ".", "..") for part in parts) or not all(
        re.fullmatch(_NAME, part) for part in parts
    ):
        return "leads outside of the folder, or is no plain name"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if member.flag_bits & 1:
        return "is encrypted"
    if not _DATASET.fullmatch(parts[0]):
        return "is in no folder DatasetXXX_NAME"
    if len(parts) > 1 and parts[1] not in _BESIDE and not _is_model(parts[1]):
        return "is in no folder TRAINER__PLANS__CONFIGURATION"
    if len(parts) <= 2 and not member.is_dir() and parts[-1] not in _BESIDE:
        return "is a file where a model's folder has to be"
    return ""


def size_fault(members: Sequence[zipfile.ZipInfo], packed: int, free: int) -> str:
    """Return what is wrong with the sizes that a zip tells; empty where nothing is.

    Args:
        members: of the zip; no more than the told size of each is ever unpacked.
        packed: bytes of the zip.
        free: bytes on the disk where it is to go.
    """
    total = sum(member.file_size for member in members)
    if total > RATIO * packed:
        return f"it is {packed} bytes and would become {total}: no model is packed like that"
    if total > free:
        return f"it needs {total} bytes, and {free} are free"
    return ""


def items(members: Iterable[zipfile.ZipInfo]) -> list[str]:
    """Return what is installed as one: models, ensembles and files beside them, as paths."""
    found = set()
    for member in members:
        parts = member.filename.rstrip("/").split("/")
        depth = 3 if len(parts) > 1 and parts[1] == "ensembles" else 2
        if len(parts) >= depth:
            found.add("/".join(parts[:depth]))
    return sorted(found)


def models(names: Iterable[str]) -> list[str]:
    """Return those of :func:`items` that are folders of models."""
    return [name for name in names if _is_model(name.split("/")[1])]


def _is_model(name: str) -> bool:
    return bool(_MODEL.fullmatch(name)) and len(name.split("__")) == 3


def content_faults(root: Path) -> list[str]:
    """Return files below a folder that nnU-Net would unpickle and that hold more than it needs.

    nnU-Net 2.8.1 reads checkpoints and ``postprocessing.pkl`` by ways that run what is in them.
    """
    faults = []
    for path in sorted(root.rglob("*")):
        told = path.relative_to(root).as_posix()
        if path.suffix in (".pth", ".pt"):
            try:
                content = read_checkpoint_file(path)
            except UserError as error:
                faults.append(str(error).replace(str(path), told))
                continue
            if not isinstance(content, dict) or "network_weights" not in content:
                faults.append(f"{told}: no checkpoint of nnU-Net")
        elif path.suffix in (".pkl", ".pickle"):
            faults += postprocessing_faults(path, told)
    return faults


def postprocessing_faults(path: Path, told: str) -> list[str]:
    """Return what a pickle holds besides nnU-Net's functions and their arguments.

    Args:
        path: of the file.
        told: its name in messages.
    """
    try:
        _, others = read_pickle(path, _FUNCTIONS)
    except UserError as error:
        return [str(error).replace(str(path), told)]
    return [f"{told}: it holds {', '.join(others)}, which is code"] if others else []
