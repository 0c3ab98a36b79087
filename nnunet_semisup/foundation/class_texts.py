"""Find what the classes of a data set are called: texts for every output channel."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_semisup.errors import UserError

DESCRIPTIONS = "class_descriptions.json"
TEMPLATE = "a medical image of the {}."


def channel_labels(dataset_json: Mapping[str, Any]) -> list[str]:
    """Return the labels in the order of the network's output channels.

    As nnU-Net's LabelManager has it. Background first and by increasing value; with regions, which
    means that a list has several values, their own order and no background. The ignore label has no
    channel.
    """
    labels: dict[str, list[int]] = {
        name: [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)]
        for name, value in dataset_json["labels"].items()
        if name != "ignore"
    }
    if any(len(values) > 1 for values in labels.values()):
        return [name for name, values in labels.items() if set(values) != {0}]
    return sorted(labels, key=lambda name: labels[name])


def class_texts(
    dataset_json: Mapping[str, Any], dataset_name: str, folder: Path | None = None
) -> dict[str, list[str]]:
    """Map each label to its texts, in the order of the output channels.

    A label's text is its name in words (``left_atrium``: "left atrium"), unless a file
    ``class_descriptions.json`` (label to a text or a list of texts) lies beside ``dataset.json`` in
    ``nnUNet_preprocessed`` or, failing that, ``nnUNet_raw``.

    Args:
        dataset_json: its content.
        dataset_name: name of the data set's folders.
        folder: where to look for the descriptions first.

    Raises:
        UserError: the file is not of that form or names labels that do not exist.
    """
    labels = channel_labels(dataset_json)
    texts = {label: [in_words(label)] for label in labels}
    own = None if folder is None else folder / DESCRIPTIONS
    path = own if own is not None and own.is_file() else descriptions_file(dataset_name)
    if path is not None:
        texts.update(_read_descriptions(path, labels))
    return texts


def descriptions_file(dataset_name: str) -> Path | None:
    """Return the data set's file of descriptions, if there is one."""
    for root in (nnUNet_preprocessed, nnUNet_raw):
        if root:
            path = Path(str(root)) / dataset_name / DESCRIPTIONS
            if path.is_file():
                return path
    return None


def in_words(label: str) -> str:
    """Return ``"left_atrium"`` as ``"left atrium"``."""
    return " ".join(re.split(r"[_\s]+", label.strip()))


def not_words(texts: Mapping[str, Sequence[str]]) -> list[str]:
    """Return labels whose text tells a text model nothing: ``1``, ``label_3``, ``RV``."""
    empty = re.compile(r"(label|class|region|organ|structure)?[\W_]*\d*\W*|\W*[A-Z0-9]{1,4}\W*")
    return [label for label, given in texts.items() if all(empty.fullmatch(text) for text in given)]


def _read_descriptions(path: Path, labels: Sequence[str]) -> dict[str, list[str]]:
    example = '{"left_atrium": "the left atrium of the heart", "background": ["...", "..."]}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not json ({error}). It looks like {example}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must map labels to texts, for example {example}")
    faults = []
    unknown = [label for label in content if label not in labels]
    if unknown:
        faults.append(
            f"names {', '.join(unknown)}, which are no labels of the data set; it has "
            f"{', '.join(labels)}"
        )
    result: dict[str, list[str]] = {}
    for label, value in content.items():
        given = [value] if isinstance(value, str) else value
        valid = isinstance(given, list) and given and all(isinstance(t, str) for t in given)
        if not valid or not all(text.strip() for text in given):
            faults.append(f"gives {label} no text or list of texts but {value!r}")
            continue
        result[label] = given
    if faults:
        raise UserError("\n".join(f"{path} {fault}." for fault in faults))
    return result
