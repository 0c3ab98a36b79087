from __future__ import annotations

import json

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.foundation import class_texts as module
from nnunet_semisup.foundation.class_texts import channel_labels, class_texts, not_words

LABELS = {"labels": {"background": 0, "right_ventricle": 2, "myocardium": 1, "ignore": 3}}
REGIONS = {"labels": {"background": 0, "whole tumor": [1, 2], "core": 2, "ignore": 3}}


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    for name in ("nnUNet_preprocessed", "nnUNet_raw"):
        monkeypatch.setattr(module, name, str(tmp_path / name))
        (tmp_path / name / "Dataset1_X").mkdir(parents=True)
    return tmp_path


def describe(folders, content, root="nnUNet_raw"):
    path = folders / root / "Dataset1_X" / "class_descriptions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_order_of_the_output_channels():
    assert channel_labels(LABELS) == ["background", "myocardium", "right_ventricle"]
    assert channel_labels(REGIONS) == ["whole tumor", "core"]


def test_order_is_that_of_nnunets_label_manager():
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(LABELS["labels"], None)
    assert manager.num_segmentation_heads == len(channel_labels(LABELS))
    regions = LabelManager(REGIONS["labels"], [1, 2])
    by_region = {tuple(v) if isinstance(v, list) else v: k for k, v in REGIONS["labels"].items()}
    assert [by_region[r] for r in regions.foreground_regions] == channel_labels(REGIONS)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "b": [2], "a": [1], "ignore": 3},
        {"background": 0, "whole": [1, 2], "core": [2], "nothing": [0, 0], "ignore": 3},
    ],
)
def test_lists_mean_regions_only_where_one_has_several_values(labels):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(labels, [1, 2] if "whole" in labels else None)
    expected = ["whole", "core"] if manager.has_regions else ["background", "a", "b"]
    assert channel_labels({"labels": labels}) == expected
    assert manager.num_segmentation_heads == len(expected)


def test_names_in_words():
    assert class_texts(LABELS, "Dataset1_X")["right_ventricle"] == ["right ventricle"]


def test_descriptions_replace_names(folders):
    describe(folders, {"core": ["the core", "necrosis"], "whole tumor": "all of it"})
    assert class_texts(REGIONS, "Dataset1_X") == {
        "whole tumor": ["all of it"],
        "core": ["the core", "necrosis"],
    }


def test_preprocessed_folder_goes_first(folders):
    describe(folders, {"core": "raw"})
    describe(folders, {"core": "preprocessed"}, "nnUNet_preprocessed")
    assert class_texts(REGIONS, "Dataset1_X")["core"] == ["preprocessed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not json"),
        ([1], "must map labels to texts"),
        ({"liver": "x", "core": 3}, "names liver, which are no labels .* whole tumor, core"),
        ({"core": []}, "gives core no text"),
        ({"core": [" "]}, "gives core no text"),
    ],
)
def test_bad_descriptions(folders, content, message):
    describe(folders, content)
    with pytest.raises(UserError, match=message):
        class_texts(REGIONS, "Dataset1_X")


def test_labels_that_are_no_words():
    texts = {name: [name] for name in ("1", "label 3", "RV", "liver", "left atrium", "class_2")}
    assert not_words(texts) == ["1", "label 3", "RV", "class_2"]
