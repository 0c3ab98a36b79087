"""What is a fault of a case and what can be accepted, whichever command asks."""

import json

import pytest

from nnunet_semisup.preparation.rules import (
    STRICT,
    Accepted,
    judge_constant_channels,
    judge_empty_label,
    judge_foreground_of_all,
    same_place,
)

CONSTANT = Accepted(constant_channels=True)
ADVICE = "; --allow-constant-channels accepts a channel that a scan lacks"


def test_a_channel_that_a_scan_lacks_is_a_fault_unless_accepted():
    values = {"t1": None, "t2": 0.0}
    fault = "t2: every voxel has the value 0"
    assert judge_constant_channels(values, STRICT) == ([fault + ADVICE], [])
    assert judge_constant_channels(values, CONSTANT) == ([], [fault])
    assert judge_constant_channels({"t1": None, "t2": None}, STRICT) == ([], [])


@pytest.mark.parametrize("accepted", [STRICT, CONSTANT])
def test_a_case_without_a_channel_that_varies_is_always_a_fault(accepted):
    assert judge_constant_channels({"ct": -1024.0}, accepted) == (
        ["ct: every voxel has the value -1024; take the original file, or leave the case out"],
        [],
    )
    faults, notes = judge_constant_channels({"t1": 0.0, "t2": 7.5}, accepted)
    assert [fault.split(";")[0] for fault in faults] == [
        "t1: every voxel has the value 0 like all channels of the case",
        "t2: every voxel has the value 7.5 like all channels of the case",
    ]
    assert notes == []


def test_an_empty_label_is_a_fault_unless_accepted():
    assert judge_empty_label("a", [0], STRICT) == [
        "a: the label has no foreground; --allow-empty accepts that"
    ]
    assert judge_empty_label("a", [0], Accepted(empty_labels=True)) == []
    assert judge_empty_label("a", [0, 2], STRICT) == []


def test_one_labeled_case_must_have_foreground():
    """The ignore label is none: nobody knows what is there."""
    assert judge_foreground_of_all({"a": [0], "b": [0, 2]}, None) == []
    (fault,) = judge_foreground_of_all({"a": [0], "b": [0, 2]}, 2)
    assert fault.startswith("none of the 2 labeled cases has foreground in its label")
    assert judge_foreground_of_all({}, None) == []


def test_origins_of_channels_agree_to_a_tenth_of_the_smallest_voxel_edge():
    spacing = (0.5, 1.0, 3.0)
    assert same_place((10.0, 0.0, 0.0), (10.04, 0.0, -0.04), spacing)
    assert not same_place((10.0, 0.0, 0.0), (10.06, 0.0, 0.0), spacing)
    assert not same_place((0.0, 0.0), (0.0, 0.0, 0.0), spacing)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"settings": 3}'])
def test_without_a_report_of_a_conversion_only_the_options_count(tmp_path, content):
    if content is not None:
        (tmp_path / "conversion_report.json").write_text(content)
    assert STRICT.or_as_converted(tmp_path) == STRICT
    assert CONSTANT.or_as_converted(tmp_path) == CONSTANT


def test_what_the_conversion_accepted_stays_accepted(tmp_path):
    settings = {"allow_constant_channels": True, "allow_empty": False}
    (tmp_path / "conversion_report.json").write_text(json.dumps({"settings": settings}))
    assert STRICT.or_as_converted(tmp_path) == CONSTANT
    assert Accepted(empty_labels=True).or_as_converted(tmp_path) == Accepted(True, True)
