"""The file that says which classes of a case were annotated."""

from __future__ import annotations

import json

import pytest

from nnunet_semisup.dataset_conversion.checking import raw_dataset
from nnunet_semisup.dataset_conversion.checking.raw_dataset import verify_dataset
from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.labeled_classes import (
    contradicting_labels,
    find_labeled_classes,
    read_labeled_classes,
)
from nnunet_semisup.preparation.raw import find_dataset
from tests.helpers import make_raw_dataset, nnunet_folders

LABELS = {"labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}}


def test_all_faults_of_the_file_come_at_once(tmp_path):
    file = tmp_path / "labeled_classes.json"
    file.write_text(
        json.dumps({"a": ["lver"], "b": [], "c": "liver", "d": ["background"], "e": ["liver"]})
    )
    with pytest.raises(UserError) as error:
        read_labeled_classes(file, LABELS)
    told = str(error.value)
    assert all(f"case {name}:" in told for name in "abcd")
    assert "case e" not in told
    assert "Classes are liver, spleen." in told


@pytest.mark.parametrize("text", ["[1]", "{"])
def test_what_is_no_object_is_refused(tmp_path, text):
    file = tmp_path / "labeled_classes.json"
    file.write_text(text)
    with pytest.raises(UserError, match="labeled_classes"):
        read_labeled_classes(file, LABELS)


@pytest.mark.parametrize(
    ("content", "labeled", "values", "said"),
    [
        (LABELS, ["liver"], {0: 5, 1: 2}, []),
        (LABELS, ["liver"], {0: 5, 1: 2, 2: 1}, ["spleen"]),
        (REGIONS, ["whole"], {0: 5, 1: 2, 2: 1}, []),  # core's value is a part of whole, too
        (REGIONS, ["core"], {0: 5, 1: 2, 2: 1}, ["whole"]),
    ],
)
def test_labels_that_contradict_it(content, labeled, values, said):
    faults = contradicting_labels({"a": labeled}, {"a": values}, content)
    assert [name for name in said if any(name in fault for fault in faults)] == said
    assert len(faults) == len(said)


def test_verify_names_cases_and_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_dataset, "_faults_by_nnunet", lambda *_: [])
    raw = nnunet_folders(tmp_path, monkeypatch).raw
    labels = {"background": 0, "liver": 1, "spleen": 2}
    made = make_raw_dataset(raw, 501, "Two", (12, 14, 16), 2, 1, labels=labels)
    folders = find_dataset(501)
    assert verify_dataset(folders).findings.faults == []
    (made.folder / "labeled_classes.json").write_text(
        json.dumps({"lab_001": ["liver"], "nobody": ["spleen"]})
    )
    faults = verify_dataset(folders).findings.faults
    assert len(faults) == 2
    assert "lab_001: its label has spleen" in faults[0]
    assert "nobody" in faults[1]


def test_the_raw_folders_file_comes_first(tmp_path, monkeypatch):
    folders = nnunet_folders(tmp_path, monkeypatch)
    raw, preprocessed = folders.raw / "Dataset501_X", folders.preprocessed / "Dataset501_X"
    assert find_labeled_classes(preprocessed, "Dataset501_X") is None
    for folder in (preprocessed, raw):
        folder.mkdir()
        (folder / "labeled_classes.json").write_text("{}")
        found = find_labeled_classes(preprocessed, "Dataset501_X")
        assert found == folder / "labeled_classes.json"
