import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semisup.errors import UserError
from nnunet_semisup.preparation.folds import (
    folds_with_unlabeled,
    hidden_by_other_folds,
    unlabeled_of_fold,
)

AVAILABLE = [f"case_{i}" for i in range(8)]
FOLDS = [
    {"train": ["case_0"], "val": ["case_1"]},
    {"train": ["case_0"], "val": ["case_1"], "unlabeled": ["case_3", "case_2"]},
]


@pytest.fixture
def write(tmp_path):
    def _write(content):
        path = tmp_path / "splits_final.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return _write


def test_ids_of_the_key_are_sorted(write):
    assert unlabeled_of_fold(write(FOLDS), 1, AVAILABLE) == ["case_2", "case_3"]


@pytest.mark.parametrize("fold", [0, 7, "all"])
def test_folds_without_the_key_have_none(write, fold):
    assert unlabeled_of_fold(write(FOLDS), fold, AVAILABLE) == []


def test_absent_file_has_none(tmp_path):
    assert unlabeled_of_fold(tmp_path / "splits_final.json", 0, AVAILABLE) == []
    assert folds_with_unlabeled(tmp_path / "splits_final.json") == []


def test_folds_with_the_key(write):
    assert folds_with_unlabeled(write(FOLDS)) == [1]


@pytest.mark.parametrize(("fold", "hidden"), [(0, 0), (1, 0), (2, 2), ("all", 2)])
def test_ids_that_only_other_folds_hide(write, fold, hidden):
    assert hidden_by_other_folds(write(FOLDS), fold) == ["case_2", "case_3"][:hidden]


@pytest.mark.parametrize("content", ["no JSON", "{}", FOLDS[:1]])
def test_nothing_is_hidden_where_no_fold_says_so(write, content):
    assert hidden_by_other_folds(write(content), "all") == []


def test_every_fault_is_named_in_one_message(write):
    ids = ["case_0", "case_1", "case_2", "case_2", "stranger"]
    path = write([{"train": ["case_0"], "val": ["case_1"], "unlabeled": ids}])
    with pytest.raises(UserError) as caught:
        unlabeled_of_fold(path, 0, AVAILABLE)
    message = str(caught.value)
    assert "case case_0: is also in 'train'" in message
    assert "case case_1: is also in 'val'" in message
    assert "case case_2: listed 2 times" in message
    assert "case stranger: unknown" in message
    assert message.count("\n  - ") == 4
    assert str(path) in message


@pytest.mark.parametrize("value", ["case_2", [1, 2], {"case_2": 1}, None])
def test_key_must_be_a_list_of_strings(write, value):
    path = write([{"train": [], "val": [], "unlabeled": value}])
    with pytest.raises(UserError, match="must be a list of case ids"):
        unlabeled_of_fold(path, 0, AVAILABLE)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        {"train": []},
        [{"train": []}],
        [3],
        [{"train": ["a"], "val": "b"}],
        [{"train": [1], "val": ["b"]}],
    ],
)
def test_malformed_file_is_refused(write, content):
    with pytest.raises(UserError, match=r"splits_final\.json"):
        unlabeled_of_fold(write(content), 0, AVAILABLE)


@given(owner=st.lists(st.sampled_from(["train", "val", "unlabeled"]), min_size=8, max_size=8))
@settings(deadline=None)
def test_disjoint_subsets_are_accepted(tmp_path_factory, owner):
    subsets = ("train", "val", "unlabeled")
    fold = {s: [i for i, o in zip(AVAILABLE, owner, strict=True) if o == s] for s in subsets}
    path = tmp_path_factory.mktemp("splits") / "splits_final.json"
    path.write_text(json.dumps([fold]))
    assert unlabeled_of_fold(path, 0, AVAILABLE) == fold["unlabeled"]
