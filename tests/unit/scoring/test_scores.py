"""Scores of cases by hand, on small arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from nnunet_semisup.inference.uncertainty import entropy
from nnunet_semisup.preparation.raw import DatasetFolders
from nnunet_semisup.scoring.cases import CaseScores
from nnunet_semisup.scoring.disagreement import between_rounds, between_votes
from nnunet_semisup.scoring.doubt import (
    doubtful_entropy,
    expected_entropy,
    foreground_probability,
)
from nnunet_semisup.scoring.order import ORDERS, places
from nnunet_semisup.scoring.ranking import labels_to_compare
from nnunet_semisup.scoring.shape import Shape, shape_of, unlike_labeled


def test_disagreement_is_one_less_the_mean_dice_of_pairs():
    votes = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 2]])
    dice = (2 / 3, 1.0, 2 / 3)
    assert between_votes(votes, (1,)) == pytest.approx(1 - sum(dice) / 3)
    # Of class 2, the pair without it says nothing; the two others share no voxel.
    assert between_votes(votes, (2,)) == 1
    # A region is its labels together.
    assert between_votes(votes[[0, 2]], (1, 2)) == pytest.approx(1 - 2 * 2 / 5)


def test_disagreement_is_undefined_where_none_has_the_class_or_one_votes_alone():
    assert between_votes(np.zeros((3, 5), int), (1,)) is None
    assert between_votes(np.ones((1, 5), int), (1,)) is None


def test_changed_voxels_count_against_the_foreground_now():
    before, now = np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 1])
    assert between_rounds(before, now) == 2 / 4
    assert between_rounds(now, now) == 0
    assert between_rounds(now, np.zeros(5, int)) == 1  # nothing is foreground now
    assert between_rounds(np.zeros(5, int), np.zeros(5, int)) == 0


def test_expected_entropy_weighs_each_voxel_by_its_class():
    values, p = torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.5, 0.5, 0.0])
    assert expected_entropy(values, p) == pytest.approx(0.75)
    # Also where no voxel is predicted to have the class, and without a voxel at all.
    assert expected_entropy(values, torch.full((3,), 1e-6)) == pytest.approx(0.5)
    assert expected_entropy(values, torch.zeros(3)) == 0


def test_foreground_is_any_class():
    p = torch.tensor([[0.2, 0.9], [0.5, 0.05], [0.3, 0.05]])
    torch.testing.assert_close(foreground_probability(p, False), torch.tensor([0.8, 0.1]))
    torch.testing.assert_close(foreground_probability(p, True), torch.tensor([0.5, 0.9]))


@pytest.mark.parametrize("confidence", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("regions", [False, True])
def test_the_limit_of_entropy_is_that_of_two_classes_in_doubt(confidence, regions):
    surely = torch.full((4, 1), 1e-9)
    if regions:  # one of four regions is in doubt
        surely[1] = confidence
    else:
        surely[1], surely[2] = confidence, 1 - confidence
    found = float(entropy(surely, regions)[0])
    assert found == pytest.approx(doubtful_entropy(confidence, 4, regions), abs=1e-4)


def test_shape_by_hand():
    mask = np.zeros((4, 5, 6), bool)
    mask[0, 0, :4] = True
    mask[3, 4, 5] = True
    found = shape_of(mask, (3.0, 2.0, 0.5))
    assert found.volume == 5 * 3
    assert found.extent == pytest.approx(math.hypot(3, 2, 2))
    assert found.fragments == pytest.approx(0.2)
    assert shape_of(np.zeros((2, 2), bool), (1, 1)) == Shape(0, 0, 0)


LABELED = {"a": [Shape(100, 10, 0), Shape(200, 12, 0.1)], "b": [Shape(5, 3, 0), Shape(0, 0, 0)]}


def test_inside_of_what_labeled_cases_show_nothing_is_unlike():
    found = unlike_labeled({"a": Shape(150, 11, 0.05), "b": Shape(0, 0, 0)}, LABELED)
    assert (found.missing, found.factor, found.fragments, found.reasons) == ((), 1, 0, ())


@pytest.mark.parametrize(
    ("shape", "factor", "fragments", "said"),
    [
        (Shape(500, 11, 0), 2.5, 0, "a: volume 2.5 times the greatest labeled one"),
        (Shape(25, 11, 0), 4, 0, "a: volume 4.0 times less than the smallest labeled one"),
        (Shape(150, 24, 0), 2, 0, "a: extent 2.0 times the greatest labeled one"),
        (Shape(150, 11, 0.4), 1, 0.3, "a: 40% of it outside its largest part, labeled at most 10%"),
    ],
)
def test_outside_of_it_the_factor_is_told(shape, factor, fragments, said):
    found = unlike_labeled({"a": shape}, LABELED)
    assert found.factor == pytest.approx(factor)
    assert found.fragments == pytest.approx(fragments)
    assert found.reasons == (said,)


def test_a_class_that_all_labeled_cases_have_is_missed():
    found = unlike_labeled({"a": Shape(0, 0, 0), "c": Shape(0, 0, 0)}, LABELED)
    assert (found.missing, found.reasons) == (
        ("a",),
        ("a: not predicted; every labeled case has it",),
    )


def case(name, entropy_of, disagreement=0.0, volume_of=None):
    mean = sum(entropy_of.values()) / len(entropy_of)
    volumes = volume_of or dict.fromkeys(entropy_of, 1.0)
    return CaseScores(
        name, disagreement, mean, None, (), 1.0, 0.0, (), {}, entropy_of, volumes
    )  # fmt: skip


CASES = [
    case("p", {"a": 0.9, "b": 0.1}, 0.2),
    case("q", {"a": 0.8, "b": 0.2}, None),
    case("r", {"a": 0.1, "b": 0.6}, 0.4),
]


def test_orders():
    found = {name: order(CASES, 0) for name, order in ORDERS.items()}
    assert found["entropy"] == ["p", "q", "r"]
    assert found["disagreement"] == ["q", "r", "p"]
    assert found["stratified"] == ["p", "r", "q"]
    assert all(sorted(order) == ["p", "q", "r"] for order in found.values())
    assert places(CASES, 0)["r"]["stratified"] == 2


def test_random_orders_follow_the_seed_and_not_the_scores():
    many = [case(f"c{i}", {"a": i / 20}) for i in range(20)]
    for name in ("random", "foreground"):
        order = ORDERS[name]
        assert order(many, 1) == order(list(reversed(many)), 1)
        assert order(many, 1) != order(many, 2)


def test_scans_without_predicted_foreground_come_last_in_the_random_order_that_knows_of_it():
    empty = [case(f"e{i}", {"a": 0.5}, volume_of={"a": 0.0}) for i in range(4)]
    full = [case(f"f{i}", {"a": 0.5}) for i in range(4)]
    order = ORDERS["foreground"]([*empty, *full], 3)
    assert {name[0] for name in order[:4]} == {"f"}


def test_the_random_order_that_knows_of_the_foreground_draws_rare_classes_first():
    """One of ten scans has a class: drawn first about every second time, by a class at random."""
    many = [
        case(f"c{i}", {"a": 0, "b": 0}, volume_of={"a": 1.0, "b": float(i == 0)}) for i in range(10)
    ]
    first = [ORDERS["foreground"](many, seed)[0] for seed in range(200)]
    assert 70 < first.count("c0") < 140


def test_scores_survive_their_file():
    assert CaseScores.of_json(CASES[0].to_json()) == CASES[0]


def test_labels_are_where_dataset_json_says(tmp_path):
    """nnU-Net's key "dataset" names the files of each case, wherever they are."""
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    entries = {c: {"images": [f"scans/{c}.nii.gz"], "label": f"masks/{c}.nii.gz"} for c in "ab"}
    (raw / "masks").mkdir(parents=True)
    preprocessed.mkdir()
    for case in "ab":
        (raw / "masks" / f"{case}.nii.gz").touch()
    content = {"file_ending": ".nii.gz", "channel_names": {"0": "MR"}, "dataset": entries}
    (raw / "dataset.json").write_text(json.dumps(content))
    (preprocessed / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    folders = DatasetFolders("Dataset001_A", raw, preprocessed)
    assert labels_to_compare(folders, (0,)) == [raw / "masks" / "a.nii.gz"]
