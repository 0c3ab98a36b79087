"""``labeled_classes.json`` beside ``dataset.json``: which classes of a case were annotated.

A case that it does not name has labels of every class::

    {"case_004": ["liver"], "case_005": ["liver", "spleen"]}
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.layout import LABELED_CLASSES_FILE
from nnunet_semisup.preparation.raw import bullet_list

LabeledClasses = Mapping[str, Collection[str]]


def class_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes, or regions, in the order of ``dataset.json``."""
    return [name for name in dataset_json["labels"] if name not in ("background", "ignore")]


def find_labeled_classes(preprocessed: str | Path, name: str) -> Path | None:
    """Return the file of a data set: that of its raw folder, else of the preprocessed one.

    Args:
        preprocessed: the data set's preprocessed folder.
        name: ``DatasetXXX_Name``.
    """
    from nnunetv2.paths import nnUNet_raw

    raw = [Path(str(nnUNet_raw.get()), name)] if nnUNet_raw.get() else []
    files = [folder / LABELED_CLASSES_FILE for folder in (*raw, Path(preprocessed))]
    return next((file for file in files if file.is_file()), None)


def read_labeled_classes(file: Path, dataset_json: Mapping[str, Any]) -> LabeledClasses:
    """Read which classes of which cases were annotated.

    Raises:
        UserError: the file is no JSON of lists by case, or names what is no class; all at once.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not valid JSON ({error}). Correct or remove it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must have a list of classes for each case: {{'case': ['class']}}.")
    names, faults = class_names(dataset_json), []
    for case, classes in content.items():
        if not isinstance(classes, list) or not classes:
            faults.append(
                f"case {case}: give a list with one class at least; a case without any belongs "
                "into imagesUn"
            )
        elif unknown := [str(one) for one in classes if one not in names]:
            faults.append(f"case {case}: {', '.join(unknown)}: no class of dataset.json")
    if faults:
        raise UserError(
            f"{file} is not usable:\n{bullet_list(faults)}\nClasses are {', '.join(names)}."
        )
    return content


def contradicting_labels(
    labeled: LabeledClasses, found: Mapping[str, Mapping[int, int]], dataset_json: Mapping[str, Any]
) -> list[str]:
    """Return faults of cases whose labels have a class that is said not to be annotated.

    Args:
        labeled: as read.
        found: of the labeled cases, voxels by value.
        dataset_json: of the data set.
    """
    values = {
        name: set(value if isinstance(value, list) else [value])
        for name, value in dataset_json["labels"].items()
    }
    faults = []
    for case, classes in labeled.items():
        if case not in found:
            faults.append(f"{LABELED_CLASSES_FILE} names {case}, which imagesTr does not have")
            continue
        annotated = set().union(*(values[name] for name in classes))
        there = {value for value, count in found[case].items() if count}
        for name in class_names(dataset_json):
            if name not in classes and (values[name] - annotated) & there:
                faults.append(
                    f"case {case}: its label has {name}, which {LABELED_CLASSES_FILE} says was not "
                    "annotated; add it there, or correct the label"
                )
    return faults
