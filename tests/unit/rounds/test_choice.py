"""Which scans are kept, and what is said of each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnunet_semisup.errors import UserError
from nnunet_semisup.rounds.choice import Choice, choose, read_choice
from nnunet_semisup.rounds.dataset import round_splits
from nnunet_semisup.rounds.design import Design
from nnunet_semisup.scoring.cases import CaseScores
from nnunet_semisup.scoring.voting import write_json

DESIGN = Design("Dataset501_X", "raw", "pre", "3d_fullres", "nnUNetPlans", (0,), "model", drop=0.25)


def scored(name, disagreement, rounds=None, **more):
    one = CaseScores(name, disagreement, 0.3, rounds, (), 1.0, 0.0, (), {}, {}, {})
    return replace(one, **more)


def reasons(choice):
    return {one.case: (one.kept, one.reason) for one in choice.decisions}


def test_in_the_first_round_the_votes_decide():
    scores = [scored("a", 0.1), scored("b", 0.4), scored("c", None), scored("d", 0.2)]
    choice = choose(scores, {}, DESIGN)
    assert reasons(choice) == {
        "c": (False, "disagreement of the votes: place 1 of 4"),
        "b": (True, "disagreement of the votes: place 2 of 4"),
        "d": (True, "disagreement of the votes: place 3 of 4"),
        "a": (True, "disagreement of the votes: place 4 of 4"),
    }
    assert (choice.kept, choice.changed, choice.converged) == (["a", "b", "d"], None, False)


def test_later_it_is_the_mean_of_the_last_two_changes():
    scores = [scored("a", 0.9, 0.3), scored("b", 0.1, 0.2), scored("c", 0.1, 0.1)]
    first = choose(scores, {}, DESIGN)
    assert [one.case for one in first.decisions if not one.kept] == ["a"]
    second = choose(scores, {"a": 0.0, "b": 0.5, "c": 0.1}, DESIGN)
    assert [one.case for one in second.decisions if not one.kept] == ["b"]
    assert second.decisions[0].score == pytest.approx(0.35)
    assert second.changed == pytest.approx(0.2)


@pytest.mark.parametrize(("limit", "converged"), [(0.19, False), (0.21, True)])
def test_labels_that_hardly_change_end_the_rounds(limit, converged):
    scores = [scored("a", 0.9, 0.3), scored("b", 0.1, 0.1)]
    assert choose(scores, {}, replace(DESIGN, converged=limit)).converged is converged


@pytest.mark.parametrize(
    "unlike",
    [{"factor": 2.1}, {"fragments": 0.21}, {"missing": ("liver",)}],
)
def test_what_is_unlike_the_labeled_cases_goes_first_and_with_its_reason(unlike):
    scores = [
        scored("a", 0.0, reasons=("liver: why",), **unlike),
        scored("b", 0.5),
        scored("c", 0.4),
    ]
    found = reasons(choose(scores, {}, replace(DESIGN, drop=0.0)))
    assert found["a"] == (False, "liver: why")
    assert found["b"] == (True, "disagreement of the votes: place 1 of 2")
    assert choose(scores, {}, replace(DESIGN, drop=0.0, size_limit=0.0)).kept == ["a", "b", "c"]


def test_within_the_limits_nothing_is_said():
    found = choose([scored("a", 0.0, factor=1.9, reasons=("x",))], {}, replace(DESIGN, drop=0.0))
    assert reasons(found) == {"a": (True, "disagreement of the votes: place 1 of 1")}


def test_one_vote_leaves_the_entropy():
    scores = [replace(scored(n, None), entropy=e) for n, e in (("a", 0.1), ("b", 0.7))]
    choice = choose(scores, {}, DESIGN)
    assert reasons(choice)["b"] == (False, "entropy: place 1 of 2")


def test_nothing_left_is_told_with_what_to_do():
    with pytest.raises(UserError, match="liver: missing"):
        choose([scored("a", 0.1, missing=("liver",), reasons=("liver: missing",))], {}, DESIGN)


def test_a_choice_survives_its_file(tmp_path):
    choice = choose([scored("a", 0.1), scored("b", None)], {}, DESIGN)
    write_json(tmp_path / "choice.json", choice.to_json())
    found = read_choice(tmp_path / "choice.json")
    assert found == choice
    assert isinstance(found, Choice)


@pytest.mark.parametrize(("share", "times"), [(0.5, 5), (0.8, 20), (0.0, 1), (0.1, 1)])
def test_labeled_cases_are_named_as_often_as_their_share_needs(share, times):
    folds = [{"train": ["a", "b"], "val": ["c"]}]
    made, alone = round_splits(folds, [f"u{i}" for i in range(10)], share)
    assert made["train"].count("a") == made["train"].count("b") == times
    assert made["train"][-10:] == [f"u{i}" for i in range(10)]
    assert alone == folds[0]
