"""Labels and channels as a user gives them: on the command line or in a ``dataset.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_semisup.dataset_conversion.checking.label_meaning import Choices, common_labels
from nnunet_semisup.dataset_conversion.reading.label_names import listed, plain
from nnunet_semisup.errors import UserError

LabelNames = dict[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class Labels:
    """Hold nnU-Net's labels, and the source's values that become them.

    ``choices`` is what the user says of single values, and of names that label files have.
    """

    names: LabelNames
    label_map: dict[int, int]
    choices: Choices
    regions_class_order: tuple[int, ...] | None = None


def read_labels(
    names: str | None,
    json_file: Path | None,
    mapping: str | None,
    found: Mapping[str, Any],
    files: Sequence[Path] = (),
) -> Labels:
    """Read the labels of ``--label-names`` or ``--labels-json``, else those beside the data.

    The ``dataset.json`` comes before the names in label files.

    Args:
        names: names by value, separated by commas, background first.
        json_file: json file with nnU-Net's ``labels`` (and ``regions_class_order``).
        mapping: ``--label-map``, such as ``255:1,128:2``.
        found: content of a ``dataset.json`` beside the data; empty if there is none.
        files: the label files that are used.

    Raises:
        UserError: nothing is said about the labels, or it does not fit together.
    """
    if names is not None and json_file is not None:
        raise UserError("give --label-names or --labels-json, not both.")
    if names is not None:
        labels, order = _from_names(names), None
    elif json_file is not None:
        labels, order = _from_json(_read(json_file), f"--labels-json {json_file}")
    elif "labels" in found:
        labels, order = _from_json(found, "the dataset.json found beside the data")
    elif own := common_labels(files):
        labels, order = dict(own), None
        print(f"the label files name their values; the labels are {listed(labels)}")
    else:
        raise UserError(
            "what the labels mean is not known. Give --label-names background,NAME (the names of "
            "the values 0, 1, ...) or --labels-json FILE with nnU-Net's 'labels'."
        )
    values = _values(labels)
    if values != list(range(len(values))):
        raise UserError(
            f"the label values are {values}; nnU-Net needs 0, 1, 2 ... without a gap. Give other "
            "names or, for other values in the files, --label-map OLD:NEW."
        )
    if order is None and any(isinstance(v, tuple) and len(v) > 1 for v in labels.values()):
        raise UserError(
            "the labels have regions, so 'regions_class_order' is needed beside 'labels'; give "
            "both by --labels-json FILE."
        )
    _refuse_alike(labels)
    choices = _choices(mapping, values)
    numbers = {old: new for old, new in choices.items() if isinstance(old, int)}
    label_map = {0: 0, **numbers} if numbers else {value: value for value in values}
    return Labels(labels, label_map, choices, order)


def _refuse_alike(labels: LabelNames) -> None:
    """Refuse two names that differ in what does not count: a label file cannot tell them apart."""
    seen: dict[str, str] = {}
    for name in labels:
        other = seen.setdefault(plain(name), name)
        if other != name:
            raise UserError(
                f"the labels '{other}' and '{name}' differ in upper case, blanks, _ or - only; "
                "rename one."
            )


def _from_names(text: str) -> LabelNames:
    names = [name.strip() for name in text.split(",")]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise UserError(
            f"--label-names {text} is not possible; give the name of the background and of every "
            "label, each once, such as background,vessel."
        )
    if names[0] != "background":
        raise UserError(f"--label-names {text}: the first must be 'background', the value 0.")
    return {name: value for value, name in enumerate(names)}


def _from_json(content: Mapping[str, Any], where: str) -> tuple[LabelNames, tuple[int, ...] | None]:
    """Read ``labels`` in nnU-Net's form, or in that of the Medical Segmentation Decathlon."""
    given = content.get("labels", content)
    try:
        if all(re.fullmatch(r"\d+", str(key)) for key in given):
            labels: LabelNames = {str(name): int(value) for value, name in given.items()}
        else:
            labels = {name: _value(value) for name, value in given.items()}
        order = content.get("regions_class_order") if "labels" in content else None
        return labels, tuple(int(v) for v in order) if order is not None else None
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: the labels are not usable ({error}); write them like "
            '{"labels": {"background": 0, "vessel": 1}}.'
        ) from error


def _value(value: Any) -> int | tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list) else int(value)


def _values(labels: LabelNames) -> list[int]:
    """Return every value that a label or a region has, sorted."""
    values: set[int] = set()
    for value in labels.values():
        values.update(value if isinstance(value, tuple) else (value,))
    return sorted(values)


def _choices(text: str | None, values: list[int]) -> Choices:
    """Return nnU-Net's value by value or name in the files, as ``--label-map`` says."""
    choices: dict[int | str, int] = {}
    pairs = re.fullmatch(r"(?:[^:]+:\s*\d+\s*(?:,|$))+", text or "")
    if text is not None and not pairs:
        raise UserError(
            f"--label-map {text} is not possible; give pairs OLD:NEW separated by commas, such as "
            "255:1, where OLD is a value or a name in the files."
        )
    for old, number in re.findall(r"([^:]+):\s*(\d+)\s*(?:,|$)", text or ""):
        new, key = int(number), int(old) if re.fullmatch(r"\s*-?\d+\s*", old) else plain(old)
        if new not in values:
            raise UserError(
                f"--label-map {old.strip()}:{new}: {new} is none of the labels' values {values}."
            )
        if key in choices:
            raise UserError(f"--label-map {text} maps {old.strip()} twice.")
        choices[key] = new
    return choices


def read_channels(
    given: str | None, found: Mapping[str, Any], files: int, values: int
) -> list[str]:
    """Read nnU-Net's channel names.

    Args:
        given: ``--channel-names``, separated by commas.
        found: content of a ``dataset.json`` beside the data; empty if there is none.
        files: image files a case has.
        values: values a voxel of such a file has.

    Raises:
        UserError: the number does not fit, or nothing is said about a scan.
    """
    number = files * values
    listed = found.get("channel_names") or found.get("modality") or {}
    if given is not None:
        names = [name.strip() for name in given.split(",")]
    elif isinstance(listed, dict) and listed and all(str(key).isdecimal() for key in listed):
        names = [str(listed[key]) for key in sorted(listed, key=int)]
    elif values == 3 and files == 1:
        names = ["R", "G", "B"]
    elif values == 4 and files == 1:
        raise UserError(
            "the pictures have four values a pixel: save them without their alpha channel, or give "
            "--channel-names with four names."
        )
    else:
        raise UserError(
            f"the names of the {number} channels are not known. Give --channel-names, {number} "
            "separated by commas: CT is normalised by its Hounsfield units, everything else (MR, "
            "US, ...) by the mean and deviation of each image."
        )
    if len(names) != number or not all(names):
        each = f"{files} files a case" + (f" with {values} values a pixel" if values > 1 else "")
        raise UserError(
            f"there are {len(names)} channel names ({', '.join(names)}) for {number} channels "
            f"({each}). Give --channel-names with {number}; --image-suffix says which files "
            "belong to one case."
        )
    return names


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as json ({error}).") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold an object with the key 'labels'.")
    return content
